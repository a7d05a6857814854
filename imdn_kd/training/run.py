"""From options to a trainer that is ready to run: checks first, then the folder, then the state to resume from."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin

from imdn_kd.data.degradation.steps import describe
from imdn_kd.data.store import StoreDataset
from imdn_kd.distill.shares import loss_shares
from imdn_kd.distill.terms import FeatureTerm
from imdn_kd.errors import InputError
from imdn_kd.inference.device import choose_device
from imdn_kd.training import distributed as launch
from imdn_kd.training.forecast import describe_run
from imdn_kd.training.log import duration
from imdn_kd.training.references import TeacherScore, teacher_score
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.open_inputs import ReadImages, open_loader
from imdn_kd.training.setup.teacher_cache import writing
from imdn_kd.training.setup.teacher_quality import compare_teachers, score_teachers
from imdn_kd.training.setup.train_setup import TrainSetup, build_setup
from imdn_kd.training.signals import Deadline, TimeUpError
from imdn_kd.training.trainer import Trainer

logger = logging.getLogger(__name__)

_KNOWN_AFTER = 3.0
"""Seconds after which it can be said how long the teacher takes for all images."""


def check(
    options: TrainOptions,
    *,
    root: Path | str = "experiments",
    auto_resume: bool = False,
    read_images: ReadImages | None = None,
) -> TrainSetup:
    """Open everything that the options name, and begin nothing.

    Args:
        options: of the run.
        root: as in `prepare`.
        auto_resume: as in `prepare`.
        read_images: see `imdn_kd.training.setup.open_inputs`.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    device = device_of(options)
    launch.check_device(device)
    return build_setup(options, device=device, root=Path(root), auto_resume=auto_resume, read_images=read_images)


def first_shares(setup: TrainSetup) -> str:
    """Describe the share of each loss term in the first loss, on four patches of the first batch; empty for one term.

    Args:
        setup: of `check`, on the CPU.
    """
    if len(setup.distiller.terms) < 2:
        return ""
    step = 0 if setup.state is None else setup.state.step
    (batch, *_), *_ = setup.loader.batches(step, step + 1, torch.device("cpu"))
    few = {plane: images[:4] for plane, images in batch.items()}
    shares = loss_shares(setup.distiller, few, step)
    return "shares of the first loss: " + ", ".join(f"{name} {_percent(share)}" for name, share in shares.items())


def forecast(options: TrainOptions, setup: TrainSetup) -> list[str]:
    """Say what a run will be, and about how long it takes: see `describe_run`.

    Args:
        options: of the run.
        setup: of `check`.
    """
    return [*describe_run(options, setup, device_of(options))]


def cache_saving(setup: TrainSetup) -> str:
    """Say how much CPU time cached maps save in an iteration, measured on one patch; empty without them.

    Args:
        setup: of `check`, on the CPU.
    """
    if not any(term.cached for term in setup.distiller.terms if isinstance(term, FeatureTerm)):
        return ""
    (batch, *_), *_ = setup.loader.batches(0, 1, torch.device("cpu"))
    patch, seconds = batch["lq"][:1], 0.0
    for _ in range(2):  # the first time, more is done
        start = time.process_time()
        for teacher in setup.distiller.teachers:
            teacher.forward_features(patch)
        seconds = time.process_time() - start
    count = len(batch["lq"])
    patches = f"{count} patches of {patch.shape[3]}x{patch.shape[2]} px"
    return (
        f"distill.cache: saves the teacher's run on {patches}, about {seconds * count:.2g} s of CPU time an iteration"
    )


def _percent(share: float) -> str:
    """A share with two digits where it is small, so that none vanishes."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _resumes(options: TrainOptions, auto_resume: bool) -> bool:
    """Whether a run that is there stays where it is."""
    return auto_resume or options.path.resume_state is not None


def prepare(
    options: TrainOptions,
    *,
    root: Path | str = "experiments",
    auto_resume: bool = False,
    deadline: Deadline | None = None,
    on_step: Callable[[int, Mapping[str, float], float], None] = lambda step, losses, rate: None,
    on_teaching: Callable[[int, int], None] = lambda done, total: None,
) -> Trainer:
    """Make a trainer and the folder of its run.

    Args:
        options: of the run.
        root: folder of all runs; this one's is called by its name. One of that name that is not to be resumed is
            kept under another name.
        auto_resume: resume from the newest state in the folder, if there is one.
        deadline: see `Trainer`.
        on_step: see `Trainer`.
        on_teaching: see `fill_teacher_cache`.

    Raises:
        InputError: with a line for everything that is wrong; then nothing was written.
        TimeUpError: filling the teacher cache took all the time; the finished part is kept.
    """
    folder, main = RunFolder(Path(root) / options.name), launch.rank() == 0
    launch.run_on_all_ranks(folder.check_free if main else lambda: None)  # before data are opened, which takes long
    setup, accelerator = _open(options, root=root, auto_resume=auto_resume)
    lock = launch.run_on_all_ranks(folder.lock if main else lambda: None)
    step = 0 if setup.state is None else setup.state.step

    def begin() -> None:
        archived = folder.begin(resumed=_resumes(options, auto_resume), step=step)
        if archived is not None:
            logger.info("the run that was in %s is kept as %s", folder.path, archived.name)
        given = options.model_dump(mode="json")
        entry = {"step": step, "options": given, "processes": launch.world_size(), "data": _manifest(setup)}
        folder.note(entry | ({} if setup.state is not None else _first_weights(options)))

    try:
        _make_ready(options, setup, on_teaching, deadline)
        launch.run_on_all_ranks(begin if main else lambda: None)
    except BaseException:
        if lock is not None:
            folder.give_up(lock)
        raise
    return Trainer(options, setup, folder, accelerator, lock=lock, deadline=deadline, on_step=on_step)


def fill_teacher_cache(
    options: TrainOptions, setup: TrainSetup, on_image: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Compute the teachers' results for all training images, as far as they are missing, and let the setup use them.

    Degraded versions of the images that are to be in the store are made before; they may be all that is wanted.

    Args:
        options: of the run, with `distill.cache` or `datasets.train.degradation_versions`.
        setup: made of these.
        on_image: called with the number of images that are done, and of all.

    Raises:
        InputError: no cache is asked for, no loss term needs one, or the store cannot be written.
    """
    versions, cache = setup.versions, setup.cache
    if cache is None and versions is None:
        raise InputError("distill.cache: is not asked for; set it to true", code="train.cache-not-asked")
    if versions is not None and not versions.is_there:
        logger.info("%d degraded versions of each image are made", len(versions.planes))
        with writing(Path(str(options.datasets.train.dataroot))):
            versions.fill(on_image)
    planes = () if cache is None else tuple(cache.planes)
    if cache is None or (versions is not None and not planes):
        setup.loader = open_loader(options)
        return
    if not planes:
        lines = cache.notes or ["distill.cache: no loss term compares what could be cached"]
        raise InputError(*lines, code="train.cache-not-asked")
    logger.info(
        "computing the teacher's outputs for %d images, once: they are kept in %s, as %s",
        *(len(setup.loader.images), cache.path, ", ".join(planes)),
    )
    start = time.perf_counter()
    cache.fill(device_of(options), _saying_how_long(on_image))
    logger.info("the teacher's outputs are computed, in %s", duration(time.perf_counter() - start))
    setup.loader = open_loader(options, cache.names())


def _saying_how_long(on_image: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """`on_image`, which says once about how long it takes, as soon as that is known."""
    start, first, told = time.perf_counter(), -1, False

    def call(done: int, total: int) -> None:
        nonlocal first, told
        first = done if first < 0 else first  # others were done before
        elapsed = time.perf_counter() - start
        if not told and first < done < total and elapsed > _KNOWN_AFTER:
            told = True
            logger.info(
                "%d of %d images, about %s left", done, total, duration(elapsed / (done - first) * (total - done))
            )
        on_image(done, total)

    return call


def check_teacher_quality(options: TrainOptions, setup: TrainSetup) -> None:
    """Score the teachers on the first images of the set for selection, or else of the first one for validation.

    Before training they have to do better than the student; see `compare_teachers`. A run that is resumed has their
    score already, unless options have changed.

    Raises:
        InputError: `teacher.no-better`.
    """
    names = [] if options.val is None else options.val.selection
    sets = [images for images in setup.val if images.name in names] or setup.val
    count = 0 if options.distill is None else options.distill.check_images
    if not setup.distiller.teachers or not sets or not count:
        return
    teachers, images, state, device = setup.distiller.teachers, sets[0], setup.state, device_of(options)
    if state is None:
        student = setup.network if options.path.pretrained is not None else None
        protocol = options.protocol()
        found = compare_teachers(teachers, student, images, count=count, protocol=protocol, device=device)
        setup.teacher = teacher_score(found)
        return
    before, now = state.options, options.model_dump(mode="json")
    if state.teacher and all(before.get(key) == now[key] for key in ("datasets", "val", "network_t", "distill")):
        setup.teacher = TeacherScore(**state.teacher)
    else:
        few = dataclasses.replace(images, pairs=images.pairs[:count])
        setup.teacher = teacher_score(score_teachers(teachers, few, protocol=options.protocol(), device=device))


def _open(options: TrainOptions, *, root: Path | str, auto_resume: bool) -> tuple[TrainSetup, Accelerator]:
    """Open what the options name, and make sure that it is the same in all processes."""
    setup = launch.run_on_all_ranks(lambda: check(options, root=root, auto_resume=auto_resume))
    step, given = 0 if setup.state is None else setup.state.step, options.model_dump(mode="json")
    launch.assert_same_on_ranks("the option file", given, "give the same one to all processes")
    launch.assert_same_on_ranks("the newest training state", step, f"{root} must be a folder that all machines share")
    launch.assert_same_on_ranks("the data", _manifest(setup), "give the same data sets to all processes")
    return setup, _accelerator(options)


def _make_ready(
    options: TrainOptions,
    setup: TrainSetup,
    on_teaching: Callable[[int, int], None],
    deadline: Deadline | None,
) -> None:
    """Check the teachers, and fill their cache, before training."""
    launch.run_on_all_ranks(lambda: check_teacher_quality(options, setup))
    if all(wanted is None or wanted.is_there for wanted in (setup.versions, setup.cache)):
        return
    if launch.world_size() > 1:
        cause = "distill.cache" if setup.cache is not None else "datasets.train.degradation_versions"
        raise InputError(
            f"{cause}: is not there yet; make it with one process first: imdn-kd cache-teacher -opt FILE",
            code="train.cache-missing",
        )

    def on_image(done: int, total: int) -> None:
        if deadline is not None and deadline.passed:
            raise TimeUpError
        on_teaching(done, total)

    fill_teacher_cache(options, setup, on_image)


def device_of(options: TrainOptions) -> torch.device:
    """Where a run is to run."""
    return choose_device("cpu" if options.num_gpu == 0 else "auto")


def _accelerator(options: TrainOptions) -> Accelerator:
    # Accelerate remembers the first settings of a process; another run in the same process may have others.
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    precision = "no" if options.train.precision == "fp32" else options.train.precision
    unused = DistributedDataParallelKwargs(find_unused_parameters=options.find_unused_parameters)
    accelerator = Accelerator(
        cpu=device_of(options).type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[unused],
        # Said here, since environment variables of `accelerate launch` would add to what the option file says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        dynamo_backend="no",
    )
    if accelerator.num_processes != launch.world_size():
        raise InputError(
            f"{launch.world_size()} processes were started, but not in a way that they can train together (LOCAL_RANK "
            "is not set); start them with torchrun or accelerate launch",
            code="launch.not-joined",
        )
    return accelerator


def _first_weights(options: TrainOptions) -> dict[str, str]:
    """Which weights a run begins with: their file may be another one later."""
    path = options.path.pretrained
    return {} if path is None else {"first_weights": hashlib.sha256(Path(path).read_bytes()).hexdigest()}


def _manifest(setup: TrainSetup) -> dict[str, Any]:
    """What the run was trained and measured on."""
    images = setup.loader.images
    train: dict[str, Any] = {"images": len(images)}
    if isinstance(images, StoreDataset):
        train["images"] = len(images.store)
        train |= {"store": str(images.store.path), "sha256": images.store.checksum, "degradation": images.degradation}
    else:
        train |= {"first": images.name(0), "last": images.name(len(images) - 1)}
    if setup.loader.degradation:
        train["degradation"] = describe(setup.loader.degradation)
    if setup.versions is not None:
        train["degraded_versions"] = len(setup.versions.planes)
    sets = {"val": setup.val, "test": setup.test}
    measured = {
        phase: [{"name": each.name, "images": len(each.pairs), "lr": each.lr_source} for each in found]
        for phase, found in sets.items()
    }
    return {"train": train, **measured}
