"""Statistics loss: statistics of features over channels or space, matched with the teacher's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, FeatureLoss, check_choice
from imdn_kd.losses.mimic import DISTANCES
from imdn_kd.registry import LOSSES


def _std(maps: Tensor, dims: tuple[int, ...]) -> Tensor:
    variance = maps.var(dims, correction=0)
    varies = variance > 0
    # The slope of the root is infinite at 0; flat maps get a gradient of 0 instead.
    return torch.where(varies, torch.where(varies, variance, 1.0).sqrt(), 0.0)


STATISTICS: dict[str, Callable[[Tensor, tuple[int, ...], float], Tensor]] = {
    "mean": lambda maps, dims, p: maps.mean(dims),
    "power": lambda maps, dims, p: maps.mean(dims).pow(p),
    "mean_power": lambda maps, dims, p: maps.pow(p).mean(dims),
    "absolute_power": lambda maps, dims, p: maps.abs().pow(p).mean(dims),
    "max": lambda maps, dims, p: maps.amax(dims),
    "min": lambda maps, dims, p: maps.amin(dims),
    "std": lambda maps, dims, p: _std(maps, dims),
}
"""Functions of maps, the dimensions to reduce, and the exponent of those that have one."""

DIMENSIONS = {"channels": (1,), "space": (2, 3)}


@LOSSES.register
class StatisticsLoss(FeatureLoss):
    """Mean distance of a statistic of the features.

    From Gao et al. (ACCV 2018, https://doi.org/10.1007/978-3-030-20890-5_34), who use it over the channels.
    Over the channels, the statistic is a map N x H x W, so that the widths of student and teacher may differ; over
    space, it is N x C, and the widths must be the same. Max and min have a gradient for the extreme values alone, which
    share it evenly where they are equal.

    Args:
        statistic: `mean`; `power`: the mean to the power of `p`; `mean_power`: the mean of f^p; `absolute_power`: the
            mean of |f|^p; `max`; `min`; `std`: the population standard deviation, with a gradient of 0 where all values
            are equal.
        p: exponent of the powers. At least 1; a whole number for `power` and `mean_power`, since means and features can
            be negative. Even ones forget the sign, odd ones keep it.
        over: `channels`, at each pixel; `space`, over all the pixels of each channel.
        distance: `l2`: squared differences; `l1`: absolute ones.

    Raises:
        InputError: another name, a `p` that the statistic cannot use, or one given to a statistic without exponent.
    """

    def __init__(self, *, statistic: str = "mean", p: float = 2, over: str = "channels", distance: str = "l2") -> None:
        super().__init__()
        for option, value, known in (
            ("statistic", statistic, STATISTICS),
            ("over", over, DIMENSIONS),
            ("distance", distance, DISTANCES),
        ):
            check_choice("StatisticsLoss", option, value, known)
        whole = statistic in ("power", "mean_power")
        if not 1 <= p < math.inf or (whole and p != int(p)):
            kind = "a positive whole number" if whole else "a number of at least 1"
            raise InputError(f"p of StatisticsLoss is {p}; give {kind}, as 2", code=OUT_OF_RANGE)
        if p != 2 and statistic not in ("power", "mean_power", "absolute_power"):
            raise InputError(
                f"p of StatisticsLoss has no effect on {statistic}; leave it out, or take power",
                code="loss.option-without-effect",
            )
        self.statistic = statistic
        self.p = p
        self.over = over
        self.distance = distance
        self.requires_same_channels = over == "space"
        if over == "channels":
            self.summary_name = f"{statistic} {float(p)}"

    def summary(self, features: Tensor) -> Tensor:
        """The statistic over the channels, N x 1 x H x W; for one over space, the maps, of which crops differ in it."""
        return self._statistic(features).unsqueeze(1) if self.over == "channels" else features

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        if self.over == "space":
            student, teacher = self._statistic(student), self._statistic(teacher)
        return DISTANCES[self.distance](student, teacher)

    def _statistic(self, features: Tensor) -> Tensor:
        return STATISTICS[self.statistic](features, DIMENSIONS[self.over], self.p)
