"""What each of two processes does in tests: `torchrun --nproc_per_node 2 -m tests.training.two_processes DATA FOLDER`.

Each writes what it has seen to FOLDER/RANK.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from imdn_kd.archs.imdn import IMDN
from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.errors import InputError
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.training import distributed as launch
from imdn_kd.training.run import prepare
from imdn_kd.training.setup import open_inputs
from imdn_kd.training.signals import Deadline
from imdn_kd.training.trainer import DivergedError, Trainer
from imdn_kd.training.validation import StoppedError, validate
from tests.training.small_runs import small_options, train
from tests.training.timed_runs import Clock, recipe, segment

SETS = ("one", "two", "three")
DISTILLED = 20
"""Iterations of the runs that are compared with those of one process."""

LOGGER = {"print_freq": 1, "save_checkpoint_freq": 100}


def scores(data: Path, accelerator: Accelerator, on_image: Any = None, names: tuple[str, ...] = SETS) -> list[Any]:
    """Name, PSNR and SSIM of every image of the sets, with the same weights everywhere."""
    torch.manual_seed(0)
    network = IMDN(num_feat=8, num_block=2, upscale=2)
    sets = [find_set(data / name, 2) for name in names]
    found = validate(network, sets, accelerator, name="n", protocol=Protocol(), on_image=on_image)
    return [[(image.name, image.psnr, image.ssim) for image in score.images] for score in found]


class Spoilt(nn.Module):
    """L1 that is not finite in some of its calls in the second process."""

    def __init__(self, calls: range) -> None:
        super().__init__()
        self.calls, self.count = calls, 0

    def forward(self, sr: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        self.count += 1
        loss = (sr - gt).abs().mean()
        return loss * float("nan") if self.count in self.calls and launch.rank() == 1 else loss


def digest(trainer: Trainer) -> str:
    values = b"".join(value.contiguous().numpy().tobytes() for value in trainer.network.state_dict().values())
    return sha256(values).hexdigest()


def the_group(data: Path, folder: Path) -> Any:
    changes = {"find_unused_parameters": True, "name": "group"}
    trainer = prepare(small_options(data, changes), root=folder)
    student = trainer.distiller.student
    return [
        *(type(student).__name__, student.find_unused_parameters, student.process_group.size()),
        *(torch.distributed.get_backend(), str(trainer.accelerator.distributed_type), trainer.accelerator.device.type),
    ]


def validation(data: Path, folder: Path) -> Any:
    sizes: list[int] = []
    found = scores(data, Accelerator(cpu=True), sizes.append)
    return {"scores": found, "images": len(sizes)}


def stopped_validation(data: Path, folder: Path) -> Any:
    def stop(_: int) -> None:
        if launch.rank() == 1:
            raise StoppedError

    try:
        scores(data, Accelerator(cpu=True), stop)
    except StoppedError:
        return "stopped"


def damaged_image(data: Path, folder: Path) -> Any:
    """The second image is gone, which only the second process reads."""
    try:
        scores(data, Accelerator(cpu=True), names=("damaged",))
    except InputError as error:
        return list(error.lines)


def damaged_training(data: Path, folder: Path) -> Any:
    """The second process cannot cut the patches of the sixth iteration."""
    trainer = prepare(small_options(data, {"name": "patches", "logger": LOGGER}), root=folder)
    whole = trainer._loader.batches

    def until_damage(*args: Any) -> Iterator[Any]:
        for number, batches in enumerate(whole(*args)):
            if number == 5 and launch.rank() == 1:
                raise InputError("an image is damaged", code="tests.damaged")
            yield batches

    trainer._loader.batches = until_damage
    try:
        trainer.run()
    except InputError as error:
        return [list(error.lines), (folder / "patches" / "training_states" / "5.state").is_file()]


def skipped_update(data: Path, folder: Path) -> Any:
    open_inputs.LOSSES.build = lambda spec: Spoilt(range(5, 6))
    trainer, result = train(small_options(data, {"name": "skipped", "logger": LOGGER}), folder)
    finite = all(bool(value.isfinite().all()) for value in trainer.network.state_dict().values())
    return [result.step, finite, digest(trainer)]


def diverged(data: Path, folder: Path) -> Any:
    open_inputs.LOSSES.build = lambda spec: Spoilt(range(3, 99))
    try:
        train(small_options(data, {"name": "diverged", "train": {"max_skipped": 3}}), folder)
    except DivergedError as error:
        return str(error)


def signal_to_one(data: Path, folder: Path) -> Any:
    def on_step(step: int, losses: Any, rate: float) -> None:
        if step == 5 and launch.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    _, result = train(small_options(data, {"name": "signal", "logger": LOGGER}), folder, on_step=on_step)
    return [result.step, result.signal, (folder / "signal" / "training_states" / "5.state").is_file()]


def unlike_options(data: Path, folder: Path) -> Any:
    try:
        prepare(small_options(data, {"name": "unlike", "manual_seed": launch.rank()}), root=folder)
    except InputError as error:
        return [list(error.lines), (folder / "unlike").exists()]


def folder_of_one(data: Path, folder: Path) -> Any:
    """The second process has a folder of its own, where nothing is."""
    options = small_options(data, {"name": "apart", "logger": LOGGER})
    train(options, folder)
    root = folder if launch.rank() == 0 else folder / "elsewhere"
    try:
        prepare(options, root=root, auto_resume=True)
    except InputError as error:
        return list(error.lines)


def distilled(folder: Path, batch: int) -> dict[str, Any]:
    """Options of a run with adapters and a critic; without the gradient penalty, which is drawn at random."""
    objectives = {
        "l_mimic": {"type": "MimicLoss", "taps": ["block.1", "block.2"]},
        "l_pair": {"type": "PairwiseLoss", "taps": ["body_out"]},
        "l_adv": {
            **{"type": "HolisticTerm", "critic": {"num_feat": 4, "stages": 2}},
            **{"gradient_penalty": 0, "loss_weight": 0.1},
        },
    }
    # Not Adam, which makes much of the rounding of gradients that are nearly 0.
    plain = {"type": "SGD", "lr": 0.02}
    rates = {"optim_g": {"lr": 1e-4}, "optim_a": plain, "optim_d": plain}
    return {
        **{"name": "distilled", "logger": LOGGER, "network_t": {"weights": str(folder / "teacher.safetensors")}},
        "datasets": {"train": {"batch_size_per_gpu": batch}},
        "distill": {"objectives": objectives, "check_images": 0},
        "train": {"total_iter": DISTILLED, "accumulation": 2, "scheduler": None, **rates},
    }


def distillation(data: Path, folder: Path) -> Any:
    train(small_options(data, distilled(folder, batch=4)), folder)


def features_first(data: Path, folder: Path) -> Any:
    """As in FitNets: at first no loss uses the student's result, later none its features."""
    objectives = {
        "l_mimic": {"type": "MimicLoss", "taps": ["block.1"], "stop_iter": 3},
        "l_kd": {"type": "L1Loss", "start_iter": 3},
    }
    changes = {
        **{"name": "features", "network_t": {"weights": str(folder / "teacher.safetensors")}},
        "distill": {"objectives": objectives, "check_images": 0},
        "train": {"pixel_opt": None, "total_iter": 6},
    }
    return train(small_options(data, changes), folder)[1].step


def decay_by_the_slowest(data: Path, folder: Path) -> Any:
    """A run for a given time where the second process is slower."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(update=(1.0, 2.0)[launch.rank()]).drive(patch)
        trainer, result = segment(recipe(data, {"name": "timed"}), folder, Deadline(60, clock))
    train = trainer.options.train
    return {"total": train.total_iter, "decay": train.scheduler.decay_iter, "step": result.step}


CHECKS = (
    *(the_group, validation, stopped_validation, damaged_image, unlike_options, folder_of_one),
    *(distillation, features_first, decay_by_the_slowest),
    *(damaged_training, signal_to_one, skipped_update, diverged),
)

if __name__ == "__main__":
    torch.set_num_threads(1)
    data, folder = map(Path, sys.argv[1:])
    with launch.processes("pytorch"):
        seen = {check.__name__: check(data, folder) for check in CHECKS}
        path = folder / f"{launch.rank()}.json"
    path.write_text(json.dumps(seen))
