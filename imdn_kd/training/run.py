"""From options to a trainer that is ready to run: checks first, then the folder, then the state to go on from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from filelock import BaseFileLock

from imdn_kd.data.store import StoreDataset
from imdn_kd.errors import InputError
from imdn_kd.inference.device import choose_device
from imdn_kd.training import launch
from imdn_kd.training.options import TrainOptions
from imdn_kd.training.plan import Plan, make_plan, open_batches
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.teaching import check_teachers
from imdn_kd.training.trainer import Trainer

logger = logging.getLogger(__name__)


def check(options: TrainOptions, *, root: Path | str = "experiments", auto_resume: bool = False) -> Plan:
    """Open everything that the options name, and begin nothing; arguments as in `prepare`.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    device = _device(options)
    launch.check_device(device)
    return make_plan(options, device=device, root=Path(root), auto_resume=auto_resume)


def prepare(
    options: TrainOptions,
    *,
    root: Path | str = "experiments",
    auto_resume: bool = False,
    on_step: Callable[[int, Mapping[str, float], float], None] = lambda step, losses, rate: None,
    on_teaching: Callable[[int, int], None] = lambda done, total: None,
) -> Trainer:
    """Make a trainer and the folder of its run.

    Args:
        options: of the run.
        root: folder of all runs; this one's is called by its name. One of that name that is not to be gone on with is
            kept under another name.
        auto_resume: go on from the newest state in the folder, if there is one.
        on_step: see `Trainer`.
        on_teaching: see `teach`.

    Raises:
        InputError: with a line for everything that is wrong; then nothing was written.
    """
    folder = RunFolder(Path(root) / options.name)
    plan = launch.together(lambda: check(options, root=root, auto_resume=auto_resume))
    step, given = 0 if plan.state is None else plan.state.step, options.model_dump(mode="json")
    launch.check_same("the option file", given, "give the same one to all processes")
    launch.check_same("the newest training state", step, f"{root} must be a folder that all machines share")
    launch.check_same("the data", _manifest(plan), "give the same data sets to all processes")
    accelerator = _accelerator(options)
    if plan.state is None:
        launch.together(lambda: examine(options, plan))
    if plan.cache is not None and not plan.cache.is_there:
        if launch.world_size() > 1:
            raise InputError("distill.cache: is not there yet; make it with one process first: imdn-kd teach -opt FILE")
        teach(options, plan, on_teaching)

    def begin() -> BaseFileLock:
        lock = folder.lock()
        archived = folder.begin(resumed=auto_resume or options.path.resume_state is not None, step=step)
        if archived is not None:
            logger.info("the run that was in %s is kept as %s", folder.path, archived.name)
        folder.note({"step": step, "options": given, "processes": launch.world_size(), "data": _manifest(plan)})
        return lock

    lock = launch.together(begin if accelerator.is_main_process else lambda: None)
    return Trainer(options, plan, folder, accelerator, lock=lock, on_step=on_step)


def teach(options: TrainOptions, plan: Plan, on_image: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Compute the teachers' results for all training images, as far as they are missing, and let the plan use them.

    Args:
        options: of the run, with `distill.cache`.
        plan: made of these.
        on_image: called with the number of images that are done, and of all.

    Raises:
        InputError: no cache is asked for, or the store cannot be written.
    """
    if plan.cache is None:
        raise InputError("distill.cache: is not asked for; set it to true")
    logger.info("the teacher's results for %d images are computed, as %s", len(plan.batches.images), plan.cache.plane)
    plan.cache.fill(_device(options), on_image)
    plan.batches = open_batches(options, (plan.cache.plane,))


def examine(options: TrainOptions, plan: Plan) -> None:
    """See that the teachers do better than the student, on the set for selection; see `check_teachers`."""
    name = None if options.val is None else options.val.select_on
    images = next((images for images in plan.val if images.name == name), None)
    count = 0 if options.distill is None else options.distill.check_images
    if not plan.lesson.teachers or images is None or not count:
        return
    student = plan.network if options.path.pretrained is not None else None
    psnr = check_teachers(
        plan.lesson.teachers,
        student,
        images,
        count=count,
        protocol=options.protocol(),
        device=_device(options),
    )
    logger.info("the teacher has %.2f dB on %d images of %s", psnr, min(count, len(images.pairs)), images.name)


def _device(options: TrainOptions) -> torch.device:
    return choose_device("cpu" if options.num_gpu == 0 else "auto")


def _accelerator(options: TrainOptions) -> Accelerator:
    # Accelerate remembers the first settings of a process; another run in the same process may have others.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    precision = "no" if options.train.precision == "fp32" else options.train.precision
    unused = DistributedDataParallelKwargs(find_unused_parameters=options.find_unused_parameters)
    accelerator = Accelerator(
        cpu=_device(options).type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[unused],
        # Said here, since environment variables of `accelerate launch` would add to what the option file says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    if accelerator.num_processes != launch.world_size():
        raise InputError(
            f"{launch.world_size()} processes were started, but not in a way that they can train together (LOCAL_RANK "
            "is not set); start them with torchrun or accelerate launch"
        )
    return accelerator


def _manifest(plan: Plan) -> dict[str, Any]:
    """What the run was trained and measured on."""
    images = plan.batches.images
    train: dict[str, Any] = {"images": len(images)}
    if isinstance(images, StoreDataset):
        train |= {"store": str(images.store.path), "sha256": images.store.checksum}
    else:
        train |= {"first": images.name(0), "last": images.name(len(images) - 1)}
    sets = {"val": plan.val, "test": plan.test}
    measured = {
        phase: [{"name": each.name, "images": len(each.pairs), "lr": each.lr_source} for each in found]
        for phase, found in sets.items()
    }
    return {"train": train, **measured}
