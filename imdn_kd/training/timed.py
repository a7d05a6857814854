"""Training in pieces: how long the next period of the learning rate is to be, so that it ends when time is up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.errors import InputError
from imdn_kd.training import distributed as launch
from imdn_kd.training.checkpoint import State
from imdn_kd.training.planned import PlannedPiece
from imdn_kd.training.schema import CosineOptions, TrainOptions
from imdn_kd.training.signals import Deadline
from imdn_kd.training.trainer import Trainer
from imdn_kd.training.validation import StoppedError

logger = logging.getLogger(__name__)

VALIDATIONS = 5
"""How many there are in a piece, beside the one at its end, unless they would take too long."""

ENDLESS = 10**9
"""Updates of a piece whose length is not known yet."""

MARGIN = 0.1
"""Part of the time that is not planned for, since speed varies."""

_MOST_FOR_VALIDATIONS = 0.25  # of the time
_WARM_UP, _FEW = 2, 3  # updates that do not count, and the fewest that do
_MOST_TO_MEASURE = 0.1, 60.0  # of the time, and in seconds


def check_scheduler(options: TrainOptions) -> CosineOptions:
    """Return the course of the learning rate, to which periods can be added.

    Raises:
        InputError: it has none.
    """
    scheduler = options.train.scheduler
    if not isinstance(scheduler, CosineOptions):
        raise InputError(
            "--minutes adds periods to the course of the learning rate, but train.scheduler has none; make its type "
            "CosineAnnealingRestartLR, or leave out --minutes"
        )
    return scheduler


def endless(options: TrainOptions) -> TrainOptions:
    """Options whose end no state is beyond."""
    return _changed(options, total_iter=ENDLESS)


def is_complete(state: State) -> bool:
    """Whether the piece that a state belongs to has made all its updates, and the validation at its end."""
    options = state.options
    measured = options["val"] is not None and any(key.startswith("val") for key in options["datasets"])
    validated = state.validated >= state.step or not measured
    return bool(validated and state.step >= options["train"]["total_iter"])


def go_on(options: TrainOptions, state: State) -> TrainOptions:
    """Options for the rest of a piece, whose length and periods are as in its state.

    Args:
        options: of the file.
        state: of a piece that is not complete.

    Raises:
        InputError: see `check_scheduler`.
    """
    check_scheduler(options)
    total: int = state.options["train"]["total_iter"]
    periods, weights = _course(state, total)
    val_freq = None if state.options["val"] is None else state.options["val"]["val_freq"]
    return _changed(options, total_iter=total, periods=periods, weights=weights, val_freq=val_freq)


def follow(options: TrainOptions, piece: PlannedPiece) -> TrainOptions:
    """Options for a piece that was planned before.

    Args:
        options: of the file.
        piece: where the run is, or just beyond.

    Raises:
        InputError: see `check_scheduler`.
    """
    check_scheduler(options)
    return _changed(
        options,
        total_iter=piece.total_iter,
        periods=piece.periods,
        weights=piece.restart_weights,
        val_freq=piece.val_freq,
    )


def planned(options: TrainOptions, start: int) -> PlannedPiece:
    """The numbers of a piece, from which `follow` makes the same options again.

    Args:
        options: of the piece; see `add_period`.
        start: updates done before it.

    Raises:
        InputError: see `check_scheduler`.
    """
    scheduler, val = check_scheduler(options), options.val
    return PlannedPiece(
        start,
        options.train.total_iter,
        list(scheduler.periods),
        list(scheduler.restart_weights),
        None if val is None else val.val_freq,
    )


def add_period(
    options: TrainOptions, state: State | None, updates: int, validations: int = VALIDATIONS
) -> TrainOptions:
    """Options for a new piece, which is one more period of the learning rate.

    Args:
        options: of the file: the last of its `restart_weights` is the height of each period but the first.
        state: of the last piece, which is complete; None: there was none.
        updates: of the period, positive.
        validations: how many are to fall into it at most, beside the one at its end.

    Raises:
        InputError: see `check_scheduler`.
    """
    scheduler = check_scheduler(options)
    done, periods, weights = 0, list[int](), list[float]()
    if state is not None:
        done = state.step
        periods, weights = ended_at(*_course(state, done), done)
    weight = scheduler.restart_weights[-1] if periods and scheduler.restart_weights else 1.0
    total = done + updates
    return _changed(
        options,
        total_iter=total,
        periods=[*periods, updates],
        weights=[*weights, weight],
        val_freq=math.ceil(updates / validations) if validations else total,
    )


def ended_at(periods: Sequence[int], weights: Sequence[float], step: int) -> tuple[list[int], list[float]]:
    """Periods that sum to `step`, and their weights: what is beyond it is cut, or the last one lengthened.

    Args:
        periods: positive, at least one.
        weights: one for each.
        step: positive.
    """
    kept, left = list[int](), step
    for period in periods:
        if left > 0:
            kept.append(min(period, left))
            left -= kept[-1]
    kept[-1] += left
    return kept, list(weights[: len(kept)])


def turning_points(options: TrainOptions) -> list[int]:
    """Updates at which others begin that may take more or less time: other patches, or other objectives."""
    objectives = [] if options.distill is None else options.distill.objectives.values()
    points = {stage.start for stage in options.datasets.train.stages()}
    points |= {point for each in objectives for point in (each.start_iter, each.stop_iter) if point is not None}
    return sorted(points)


def length(
    seconds: float,
    *,
    start: int,
    turns: Iterable[int],
    seconds_at: Callable[[int], float],
    validation: float,
    test: float,
) -> tuple[int, int]:
    """How many updates fit some time, and how many validations beside the one at the end.

    Args:
        seconds: the time, all of which is used.
        start: updates done.
        turns: see `turning_points`.
        seconds_at: gives the time of an update, positive, from the updates done; asked at `start`, and at those of
            `turns` that come within the time.
        validation: seconds of one; 0: there are none.
        test: seconds of the test at the end.

    Returns:
        0 updates or more.
    """
    most = _MOST_FOR_VALIDATIONS * max(seconds, 0)
    validations = VALIDATIONS if validation * VALIDATIONS <= most else int(most / validation)
    left, here = seconds - test - (validations + 1) * validation, start
    for turn in sorted(turn for turn in turns if turn > start):
        each = seconds_at(here)
        if left < each * (turn - here):
            return here - start + max(0, int(left / each)), validations
        left, here = left - each * (turn - here), turn
    return here - start + max(0, int(left / seconds_at(here))), validations


def length_of_piece(trainer: Trainer, deadline: Deadline, opening: float) -> tuple[int, int]:
    """Measure what things take here, and return how many updates and validations fit; see `length`.

    Args:
        trainer: has not run, and is thrown away afterwards.
        deadline: when the piece is to end.
        opening: seconds until a trainer like this one is ready.
    """
    start = trainer.step
    turns = [turn for turn in turning_points(trainer.options) if turn > start]
    watch = _Stopwatch(trainer, deadline, turns=len(turns))
    paces = {start: watch.update(start)}
    validation, test = watch.scores(trainer.setup.val), watch.scores(trainer.setup.test)

    def seconds_at(step: int) -> float:
        if step not in paces:
            paces[step] = watch.update(step)
        return paces[step]

    measured = 0
    # Measuring takes time, too.
    while measured < len(paces):
        measured = len(paces)
        left = -_slowest(opening + watch.beginning - deadline.left) * (1 - MARGIN)
        updates, validations = length(
            left, start=start, turns=turns, seconds_at=seconds_at, validation=validation, test=test
        )
    logger.info("%d updates are planned for %.1f minutes, at %.3g s each", updates, left / 60, paces[start])
    return updates, validations


class _Stopwatch:
    """Finds out how long things take in the slowest process; all of them must ask the same.

    About a tenth of the time is used for it, a minute at most; but a few updates are made in any case.

    Args:
        trainer: of which nothing else is wanted.
        deadline: says how much time there is, and gives the clock.
        turns: at how many further points updates may be asked for.

    Attributes:
        beginning: seconds that updates have taken in addition where they were the first, for compilation and the like.
    """

    def __init__(self, trainer: Trainer, deadline: Deadline, *, turns: int) -> None:
        part, most = _MOST_TO_MEASURE
        self._trainer, self._clock, self._turns = trainer, deadline.clock, turns
        self._limit = min(part * deadline.seconds, most)
        self.beginning = 0.0

    def update(self, start: int) -> float:
        """Seconds of an update after `start` others."""
        updates = self._trainer.rehearse(start, _WARM_UP + _FEW)
        warm_up = self._time(updates, _WARM_UP)
        each = self._time(updates, _FEW) / _FEW
        more = int(self._limit / 2 / (1 + self._turns) / each) - _FEW
        if more > _FEW:
            each = self._time(self._trainer.rehearse(start + _WARM_UP + _FEW, more), more) / more
        self.beginning += max(0.0, warm_up - _WARM_UP * each)
        return each

    def scores(self, sets: Sequence[ImageSet]) -> float:
        """Seconds for scoring all images of some sets, found from as many as time allows."""
        begin, seen = self._clock(), 0

        def look_up(_: int) -> None:
            nonlocal seen
            seen += 1
            if self._clock() - begin > self._limit / 4:
                raise StoppedError

        if not sets:
            return 0.0
        with suppress(StoppedError):
            self._trainer.score(sets, look_up)
        processes, rank = launch.world_size(), launch.rank()
        mine = sum(len(images.pairs[rank::processes]) for images in sets)
        return _slowest((self._clock() - begin) / max(seen, 1) * mine)

    def _time(self, updates: Iterable[None], count: int) -> float:
        begin = self._clock()
        for _ in islice(updates, count):
            pass
        # Never 0, as it is to a clock that goes in large steps.
        return _slowest(max(self._clock() - begin, 1e-6))


def _slowest(seconds: float) -> float:
    return max(launch.all_gather_object(seconds))


def _course(state: State, end: int) -> tuple[list[int], list[float]]:
    """Periods of a state and their weights; a single one up to an update if its rate had another course."""
    scheduler = state.options["train"]["scheduler"]
    if scheduler is None or scheduler["type"] != "CosineAnnealingRestartLR":
        return [end], [1.0]
    return scheduler["periods"], scheduler["restart_weights"]


def _changed(
    options: TrainOptions,
    *,
    total_iter: int,
    periods: Sequence[int] | None = None,
    weights: Sequence[float] = (),
    val_freq: int | None = None,
) -> TrainOptions:
    """Options with other numbers; None leaves what is there."""
    train: dict[str, Any] = {"total_iter": total_iter}
    if periods is not None and options.train.scheduler is not None:
        course = {"periods": list(periods), "restart_weights": list(weights)}
        train["scheduler"] = options.train.scheduler.model_copy(update=course)
    val = options.val
    if val is not None and val_freq is not None:
        val = val.model_copy(update={"val_freq": val_freq})
    return options.model_copy(update={"train": options.train.model_copy(update=train), "val": val})
