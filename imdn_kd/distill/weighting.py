"""Weights of objectives as pure functions of the update."""

from __future__ import annotations

from collections.abc import Callable

Weight = Callable[[int], float]
"""From how many updates have been made, 0 before the first, to the weight in the next one."""


def weight_schedule(
    weight: float, *, total: int, start: int = 0, stop: int | None = None, ramp: int = 0, decay: int = 0
) -> Weight:
    """A weight that rises, stays and falls; 0 before and after.

    Args:
        weight: its height.
        total: updates of the training.
        start: the first update in which it counts.
        stop: the first in which it no longer counts; None: `total`.
        ramp: in update `start` + i it is i + 1 parts of `ramp` + 1 of its height, until it has reached that.
        decay: likewise before `stop`.
    """
    end = total if stop is None else stop

    def at(step: int) -> float:
        if not start <= step < end:
            return 0.0
        rising = (step - start + 1) / (ramp + 1)
        falling = (end - step) / (decay + 1)
        return weight * min(1.0, rising, falling)

    return at
