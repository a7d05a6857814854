"""Training for a given time: the learning rate is constant, and decays to its end when a share of the time is left.

This is warmup-stable-decay: MiniCPM, https://arxiv.org/abs/2404.06395, and Hägele et al.,
https://arxiv.org/abs/2405.18392, whose share and shape of the decay are used here. A run is trained in segments, each
of a stable phase and a decay. The clock says how long the stable phase is; the end of the decay is then fixed in the
newest training state, so that a run that was killed resumes to the same end.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from imdn_kd.errors import InputError
from imdn_kd.training import distributed as launch
from imdn_kd.training.checkpoint import State, newest_state, save_state
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import OPEN_END, StableDecayOptions, TrainOptions
from imdn_kd.training.setup.resume import open_state
from imdn_kd.training.signals import Deadline
from imdn_kd.training.trainer import Trainer, TrainResult

DECAY_SHARE = 0.2
"""Part of the time that is left when the decay begins."""

MARGIN = 0.1
"""Part of that which is left for opening the data again and for the scores at the end."""

Train = Callable[[TrainOptions, bool, "Deadline | None"], tuple[Trainer, TrainResult]]
"""Trains to the end that the options say or to a deadline; from the options, and whether to resume the run."""


def train_segment(
    options: TrainOptions,
    deadline: Deadline,
    train: Train,
    *,
    root: Path | str = "experiments",
    auto_resume: bool = False,
) -> tuple[Trainer, TrainResult]:
    """Train the next segment of a run, or what is left of one that was stopped.

    A decay that has begun is always finished, whatever the time: weights before its end are worth little.

    Args:
        options: of the run; its schedule is replaced, see `next_segment`.
        deadline: about when the segment is to end; the scores at the end may come later.
        train: trains one phase.
        root: folder of all runs.
        auto_resume: resume the run from its newest state, if there is one.

    Raises:
        InputError: as `train`; or the newest state cannot be read.
    """
    folder = RunFolder(Path(root) / options.name)
    segment = launch.run_on_all_ranks(
        lambda: next_segment(options, open_state(options, folder, auto_resume=auto_resume))
    )
    if not segment.train.is_open:
        return train(segment, auto_resume, None)
    trainer, result = train(segment, auto_resume, deadline.earlier(DECAY_SHARE * deadline.seconds))
    if not result.time_up:
        return trainer, result
    # The slowest process counts.
    iterations = max(1, min(launch.all_gather_object(trainer.iterations_in((1 - MARGIN) * deadline.left))))
    return train(begin_decay(trainer, iterations), True, None)


def next_segment(options: TrainOptions, state: State | None) -> TrainOptions:
    """Return the options of the segment that a run is in, or else of a new one, whose end is open.

    Args:
        options: of the file. Of its schedule, `eta_min` and `restart_weights` count: the first of these is the factor
            of the learning rate in the first segment of a run, the last in all others.
        state: of the run; None to begin one.
    """
    given = options.train.scheduler
    weights = (given.restart_weights if given is not None else []) or [1.0]
    eta_min = getattr(given, "eta_min", 0.0)
    if state is not None:
        weights = weights[-1:]
        before, total = state.options["train"]["scheduler"], state.options["train"]["total_iter"]
        if before is not None and before["type"] == "WarmupStableDecayLR" and not is_complete(state):
            if state.step >= total - before["decay_iter"]:
                return _with_schedule(options, total, StableDecayOptions(**before))
            weights = before["restart_weights"]
    schedule = StableDecayOptions(type="WarmupStableDecayLR", decay_iter=0, restart_weights=weights, eta_min=eta_min)
    return _with_schedule(options, OPEN_END, schedule)


def begin_decay(trainer: Trainer, iterations: int) -> TrainOptions:
    """Fix the end of a segment in its newest state, where it outlives this process, and return its options.

    Args:
        trainer: has trained the stable phase.
        iterations: of the decay, at least 1.

    Raises:
        InputError: the state cannot be written, or there is none.
    """
    folder, options = trainer.folder, trainer.options

    def fix() -> TrainOptions:
        state = newest_state(folder.states)
        if state is None:
            raise InputError(f"{folder.states}: no state was saved; lower the learning rate", code="train.no-state")
        assert isinstance(options.train.scheduler, StableDecayOptions)  # noqa: S101 - as next_segment made it
        schedule = options.train.scheduler.model_copy(update={"decay_iter": iterations})
        fixed = _with_schedule(options, state.step + iterations, schedule)
        if launch.rank() == 0:
            with folder.lock():
                whole = dataclasses.replace(state, options=fixed.model_dump(mode="json"))
                save_state(folder.states, whole, keep_last=options.logger.keep_last)
        return fixed

    return launch.run_on_all_ranks(fix)


def is_complete(state: State) -> bool:
    """Return whether a run has made all its iterations, and the validation at its end."""
    options = state.options
    measured = options["val"] is not None and any(key.startswith("val") for key in options["datasets"])
    validated = state.validated >= state.step or not measured
    return bool(validated and state.step >= options["train"]["total_iter"])


def _with_schedule(options: TrainOptions, total_iter: int, schedule: StableDecayOptions) -> TrainOptions:
    train = options.train.model_copy(update={"total_iter": total_iter, "scheduler": schedule})
    return options.model_copy(update={"train": train})
