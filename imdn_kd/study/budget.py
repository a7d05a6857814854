"""The same training in another number of iterations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

from imdn_kd.distill.schema import LossTermOptions
from imdn_kd.training.schema import CosineOptions, Scheduler, StableDecayOptions, TrainOptions

WARM_UP = 0.1
"""Largest part of a run that is warm-up."""


def with_budget(options: TrainOptions, total: int) -> TrainOptions:
    """Bring a run to another number of iterations.

    Learning rate schedules, stages of patch sizes, intervals of loss terms and of validations are scaled in proportion.
    Warm-up, which belongs to the first steps of the optimizer, stays as it is, up to `WARM_UP` of the run.

    Args:
        options: of the run.
        total: iterations, 1 or more.
    """
    train, before = options.train, options.train.total_iter
    if total == before:
        return options

    def scaled(iterations: int) -> int:
        return round(iterations * total / before)

    changes: dict[str, Any] = {"total_iter": total}
    for key in ("scheduler", "scheduler_d"):
        schedule = getattr(train, key)
        if schedule is not None:
            changes[key] = _scaled_schedule(schedule, scaled)
    if train.warmup_iter > 0:
        changes["warmup_iter"] = min(train.warmup_iter, max(1, int(WARM_UP * total)))
    whole: dict[str, Any] = {"train": train.model_copy(update=changes)}
    if options.val is not None:
        whole["val"] = options.val.model_copy(update={"val_freq": max(1, scaled(options.val.val_freq))})
    if options.distill is not None:
        terms = {name: _scaled_term(term, scaled) for name, term in options.distill.objectives.items()}
        whole["distill"] = options.distill.model_copy(update={"objectives": terms})
    data = options.datasets.train
    if data.iters:
        changed = data.model_copy(update={"iters": [max(1, length) for length in _scaled_lengths(data.iters, scaled)]})
        whole["datasets"] = options.datasets.model_copy(update={"train": changed})
    return options.model_copy(update=whole)


def _scaled_schedule(schedule: Scheduler, scaled: Any) -> Scheduler:  # noqa: ANN401 - of iterations
    if isinstance(schedule, CosineOptions):
        return schedule.model_copy(update={"periods": _scaled_lengths(schedule.periods, scaled)})
    if isinstance(schedule, StableDecayOptions):
        return schedule.model_copy(update={"decay_iter": scaled(schedule.decay_iter)})
    places = {key: [scaled(place) for place in getattr(schedule, key)] for key in ("milestones", "restarts")}
    return schedule.model_copy(update=places)


def _scaled_lengths(lengths: Sequence[int], scaled: Any) -> list[int]:  # noqa: ANN401
    """Lengths in a row, of which the ends are scaled, so that no rounding adds up."""
    ends = [0, *map(scaled, accumulate(lengths))]
    return [end - begin for begin, end in pairwise(ends)]


def _scaled_term(term: LossTermOptions, scaled: Any) -> LossTermOptions:  # noqa: ANN401
    changes = {key: scaled(getattr(term, key)) for key in ("start_iter", "ramp_iter", "decay_iter")}
    if term.stop_iter is not None:
        changes["stop_iter"] = max(changes["start_iter"] + 1, scaled(term.stop_iter))
    return term.model_copy(update={key: value for key, value in changes.items() if key in term.model_fields_set})
