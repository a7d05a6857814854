"""What differences between runs of the same seeds show: confidence intervals, and verdicts in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

Values = npt.NDArray[np.floating[Any]]

LEVEL = 0.95
"""Of confidence: of comparisons without a true difference, one in twenty is called better or worse all the same."""

Verdict = Literal["better", "worse", "no difference", "the same", "not comparable"]


@dataclass(frozen=True)
class Difference:
    """A paired difference of two arms: mean over seeds, and half the width of its confidence interval.

    Attributes:
        mean: of the differences; nan if some are not finite.
        half: mean +- half is the interval; inf with one seed.
        seeds: how many differences there were.
    """

    mean: float
    half: float
    seeds: int

    @property
    def verdict(self) -> Verdict:
        """What the interval shows: `better` and `worse` where it does not hold 0."""
        if not np.isfinite(self.mean):
            return "not comparable"
        if self.mean == self.half == 0:
            return "the same"
        if abs(self.mean) > self.half:
            return "better" if self.mean > 0 else "worse"
        return "no difference"

    def in_words(self, unit: str = "dB") -> str:
        """The verdict as a sentence would have it, such as `better by .05 +- .02 dB, 3 seeds`."""
        seeds = f"{self.seeds} seed{'s' if self.seeds != 1 else ''}"
        if self.verdict == "not comparable":
            return f"not comparable: figures are not finite ({seeds})"
        if self.seeds == 1:
            return f"{signed(self.mean)} {unit}, 1 seed: no verdict"
        if self.verdict == "the same":
            return f"the same results, {seeds}"
        if self.verdict == "no difference":
            return f"no difference that {seeds} can show ({signed(self.mean)} +- {plain(self.half)} {unit})"
        return f"{self.verdict} by {plain(abs(self.mean))} +- {plain(self.half)} {unit}, {seeds}"


def paired_interval(differences: Values, level: float = LEVEL) -> tuple[Values, Values]:
    """Mean of paired differences, and half the width of Student's confidence interval of it.

    Args:
        differences: ... x n, one for each pair.
        level: of confidence, in (0, 1).

    Returns:
        Both of the shape ...; the half width is inf for n = 1.
    """
    count = differences.shape[-1]
    mean: Values = differences.mean(-1)
    if count == 1:
        return mean, np.full_like(mean, np.inf)
    quantile = float(stats.t.ppf((1 + level) / 2, count - 1))
    half: Values = quantile * differences.std(-1, ddof=1) / np.sqrt(count)
    return mean, half


def compare(arm: Sequence[float], control: Sequence[float], level: float = LEVEL) -> Difference:
    """Compare an arm with a control.

    Args:
        arm: a figure for each seed; one at least.
        control: those of the same seeds, in the same order.
        level: of confidence.
    """
    both = np.array([arm, control], dtype=np.float64)
    if not np.isfinite(both).all():
        return Difference(float("nan"), float("nan"), len(arm))
    mean, half = paired_interval(both[0] - both[1], level)
    return Difference(float(mean), float(half), len(arm))


def plain(value: float) -> str:
    """A figure of 0 or more without the zero before its point: .05, or .004 where two digits would hide it."""
    text = f"{value:.2f}" if value >= 0.095 else f"{value:.3f}"
    return text.removeprefix("0") if value < 1 else text


def signed(value: float) -> str:
    """The same with its sign."""
    return f"{'-' if value < 0 else '+'}{plain(abs(value))}"
