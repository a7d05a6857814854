"""Runs for a given time, by a clock that goes with the work done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from imdn_kd.training import best_checkpoint
from imdn_kd.training.run import prepare
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.signals import Deadline
from imdn_kd.training.timed import train_segment
from imdn_kd.training.trainer import Trainer, TrainResult
from imdn_kd.training.update import TrainStep
from tests.training.small_runs import merged, small_options, with_validation

COSINE = {"type": "CosineAnnealingRestartLR", "periods": [8, 4], "restart_weights": [0.7, 0.5], "eta_min": 1e-6}
NOT_MULTISTEP = {"milestones": None, "gamma": None}


def recipe(data: Path, changes: dict[str, Any] | None = None) -> TrainOptions:
    """A recipe whose own number of iterations plays no part."""
    schedule = {"train": {"total_iter": 3, "scheduler": {**COSINE, **NOT_MULTISTEP}}}
    return small_options(data, merged(merged(with_validation(data, select_on="held_out"), schedule), changes or {}))


class Clock:
    """Time that passes with iterations and scored images alone, in seconds."""

    def __init__(self, update: float = 1.0, image: float = 0.0) -> None:
        self.now, self.update, self.image = 0.0, update, image

    def __call__(self) -> float:
        return self.now

    def drive(self, patch: Any) -> Clock:
        make, validate = TrainStep.run, best_checkpoint.validate

        def slow_step(*args: Any, **keywords: Any) -> Any:
            self.now += self.update
            return make(*args, **keywords)

        def slow_validate(*args: Any, on_image: Any, **keywords: Any) -> Any:
            def slow_image(index: int) -> None:
                self.now += self.image
                on_image(index)

            return validate(*args, on_image=slow_image, **keywords)

        patch.setattr(TrainStep, "run", slow_step)
        patch.setattr(best_checkpoint, "validate", slow_validate)
        return self


def segment(options: TrainOptions, root: Path, deadline: Deadline, **keywords: Any) -> tuple[Trainer, TrainResult]:
    """What `imdn-kd train --auto_resume --minutes` does."""

    def phase(options: TrainOptions, resume: bool, deadline: Deadline | None) -> tuple[Trainer, TrainResult]:
        trainer = prepare(options, root=root, auto_resume=resume, deadline=deadline, **keywords)
        return trainer, trainer.run()

    return train_segment(options, deadline, phase, root=root, auto_resume=True)
