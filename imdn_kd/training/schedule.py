"""Learning rate schedules as pure functions of the iteration."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from imdn_kd.errors import InputError

Factor = Callable[[int], float]
"""From how many iterations have been made, 0 before the first, to the factor of the base rate for the next one."""


RANGE = "schedule.range"


def constant() -> Factor:
    """The base rate throughout."""
    return lambda step: 1.0


def multistep(
    milestones: Sequence[int],
    gamma: float = 0.1,
    restarts: Sequence[int] = (0,),
    restart_weights: Sequence[float] = (1,),
) -> Factor:
    """A rate that is multiplied at milestones: MultiStepRestartLR of BasicSR, which it also calls MultiStepLR.

    Args:
        milestones: iterations, ascending, at which the rate is multiplied by `gamma`; twice, where one is given
            twice. One that is also a restart counts as the restart only.
        gamma: positive.
        restarts: iterations, ascending, at which the rate goes back to the base rate.
        restart_weights: times this, one for each restart; positive.

    Raises:
        InputError: values that are not as described.
    """
    milestones, restarts, weights = list(milestones), list(restarts), list(restart_weights)
    _check_ascending("milestones", milestones)
    _check_ascending("restarts", restarts)
    if len(set(restarts)) < len(restarts):
        raise InputError(f"restarts are {_listed(restarts)}; give each of them once", code=RANGE)
    _check_positive("gamma", [gamma])
    _check_positive("restart_weights", weights)
    _check_lengths("restarts", restarts, weights)

    def factor(step: int) -> float:
        begun = bisect_right(restarts, step)
        start, weight = (restarts[begun - 1], weights[begun - 1]) if begun else (-1, 1.0)
        passed = bisect_right(milestones, step) - bisect_right(milestones, start)
        return float(weight * gamma**passed)

    return factor


def cosine_restarts(
    periods: Sequence[int], restart_weights: Sequence[float] = (1,), eta_min_ratio: float = 0.0
) -> Factor:
    """A rate that decays along half a cosine, again and again: CosineAnnealingRestartLR of BasicSR.

    A period ends with its last iteration: the rate is lowest there, and the next one begins the next period. After the
    last period the rate stays at its end, where that of BasicSR fails.

    Args:
        periods: how many iterations each takes, positive.
        restart_weights: factor of the rate, one for each period; positive.
        eta_min_ratio: where each ends: the lowest rate / the base rate, 0 to 1.

    Raises:
        InputError: values that are not as described.
    """
    periods, weights = list(periods), list(restart_weights)
    if not periods:
        raise InputError("periods are missing; give at least one", code=RANGE)
    _check_positive("periods", periods)
    _check_positive("restart_weights", weights)
    _check_lengths("periods", periods, weights)
    if not 0 <= eta_min_ratio <= 1:
        raise InputError(
            f"the lowest rate is {eta_min_ratio} of the base rate; give one between 0 and the base rate", code=RANGE
        )
    ends = list(accumulate(periods))

    def factor(step: int) -> float:
        index = min(bisect_left(ends, step), len(ends) - 1)
        left = max(ends[index] - step, 0) / periods[index]
        return eta_min_ratio + weights[index] * (1 - eta_min_ratio) * (1 - math.cos(math.pi * left)) / 2

    return factor


def stable_decay(total: int, decay: int, weight: float = 1.0, eta_min_ratio: float = 0.0) -> Factor:
    """A rate that is constant, and then decays as 1 - sqrt(x): https://arxiv.org/abs/2405.18392, section 3.

    Args:
        total: iterations in all; the rate of the last one, and after it, is the lowest.
        decay: how many of these the decay takes, 0 to `total`.
        weight: of the rate before the decay; positive.
        eta_min_ratio: the lowest rate / the base rate, 0 to `weight`.

    Raises:
        InputError: values that are not as described.
    """
    _check_positive("restart_weights", [weight])
    if not 0 <= decay <= total:
        raise InputError(f"decay_iter is {decay}; give a number from 0 to total_iter, {total}", code=RANGE)
    if not 0 <= eta_min_ratio <= weight:
        raise InputError(
            f"the lowest rate is {eta_min_ratio} of the base rate, which begins with {weight}; give a lower eta_min",
            code=RANGE,
        )

    def factor(step: int) -> float:
        done = min(max(step + 1 - (total - decay), 0), decay)
        return weight - (weight - eta_min_ratio) * math.sqrt(done / decay) if done else weight

    return factor


def warm_up(factor: Factor, warmup_iter: int) -> Factor:
    """Let the rate rise linearly before it follows `factor`, as BasicSR does.

    Iteration i, from 1, is made with the base rate times i / `warmup_iter` as long as i < `warmup_iter`. (In BasicSR a
    multi-step rate stays at the last value of the warm-up until it restarts; here it does not.)

    Args:
        factor: the schedule without warm-up; it is counted from the beginning of the warm-up.
        warmup_iter: 0 or less is no warm-up.
    """
    return lambda step: (step + 1) / warmup_iter if step + 1 < warmup_iter else factor(step)


def _check_ascending(name: str, values: Sequence[int]) -> None:
    if any(value < 0 for value in values) or any(a > b for a, b in pairwise(values)):
        raise InputError(f"{name} are {_listed(values)}; give iterations from 0, in ascending order", code=RANGE)


def _check_positive(name: str, values: Sequence[float]) -> None:
    if not all(0 < value < math.inf for value in values):
        raise InputError(f"{name}: {_listed(values)}; give positive numbers", code=RANGE)


def _check_lengths(name: str, values: Sequence[int], weights: Sequence[float]) -> None:
    if len(values) != len(weights):
        raise InputError(
            f"there are {len(values)} {name} and {len(weights)} restart_weights; give one for each", code=RANGE
        )


def _listed(values: Sequence[float]) -> str:
    return ", ".join(map(str, values)) or "none"
