"""Variational information distillation: how well a teacher's features can be told from the student's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import SHAPES_DIFFER, check_choice, upcast

DISTRIBUTIONS = ("gaussian", "laplace")

LEAST_SPREAD = 1e-5
"""Added to a spread, which is positive then."""


class VariationalLoss(nn.Module):
    """Negative log-likelihood of a teacher's features, the mean over all values, without constants.

    Minimising it maximises a lower bound of the mutual information of the features of both networks (Ahn et al., VID,
    CVPR 2019, https://arxiv.org/abs/1904.05835). It can be negative. `VidTerm` uses it.

    - `gaussian`: (log v + (t - m)^2 / v) / 2 with mean m and variance v, as in VID.
    - `laplace`: log b + |t - m| / b with location m and scale b, as in PISR (Lee et al., ECCV 2020,
      https://arxiv.org/abs/2007.07524).

    Args:
        distribution: one of these.

    Raises:
        InputError: another distribution.
    """

    requires_same_channels = False
    adapts = True

    def __init__(self, *, distribution: str = "gaussian") -> None:
        super().__init__()
        check_choice("VidTerm", "distribution", distribution, DISTRIBUTIONS)
        self.distribution = distribution

    def forward(self, location: Tensor, spread: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32; the teacher gets no gradient.

        Args:
            location: m, N x D x H x W.
            spread: v or b, positive, of a shape that can be expanded to that.
            teacher: t, N x D x H x W.

        Raises:
            InputError: the shapes do not fit.
        """
        if location.shape != teacher.shape:
            raise InputError(
                f"VidTerm: features must have the same shape, but are {tuple(location.shape)} and "
                f"{tuple(teacher.shape)}",
                code=SHAPES_DIFFER,
            )
        with torch.autocast(location.device.type, enabled=False):
            difference, spread = upcast(location) - upcast(teacher.detach()), upcast(spread)
            if self.distribution == "laplace":
                return (spread.log() + difference.abs() / spread).mean()
            return (spread.log() + difference.square() / spread).mean() / 2


class VariationalAdapter(nn.Module):
    """Predicts a distribution of the teacher's features from the student's: three 1x1 convolutions with ReLU.

    Args:
        widths: channels of student and teacher.
        distribution: `gaussian`: one variance for each channel, which is learned and does not depend on the input;
            `laplace`: a scale for each value, by a second branch.
        init_variance: variance at the beginning, above `LEAST_SPREAD`.
    """

    def __init__(self, widths: tuple[int, int], *, distribution: str, init_variance: float) -> None:
        super().__init__()
        self.location = _convolutions(*widths)
        # Of a Laplace distribution, the variance is 2 b^2.
        spread = init_variance if distribution == "gaussian" else math.sqrt(init_variance / 2)
        raw = _inverse_softplus(spread - LEAST_SPREAD)
        self.scale: nn.Sequential | None = None
        if distribution == "gaussian":
            self.raw_variance = nn.Parameter(torch.full((1, widths[1], 1, 1), raw))
        else:
            self.scale = _convolutions(*widths)
            nn.init.zeros_(self.scale[-1].weight)  # type: ignore[arg-type]
            nn.init.constant_(self.scale[-1].bias, raw)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return location and spread for features N x C x H x W: N x D x H x W, and 1 x D x 1 x 1 or the same."""
        raw = self.raw_variance if self.scale is None else self.scale(features)
        return self.location(features), functional.softplus(raw) + LEAST_SPREAD


def _convolutions(narrow: int, wide: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(narrow, wide, 1), nn.ReLU(), nn.Conv2d(wide, wide, 1), nn.ReLU(), nn.Conv2d(wide, wide, 1)
    )


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))
