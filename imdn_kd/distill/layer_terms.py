"""Loss terms between features that need more than a loss of two maps: of pairs of layers, or with learned variances."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from imdn_kd.distill.feature_pairs import FeaturePair, pool_to_smaller
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import INVALID_OPTIONS, FeatureTerm, WeightSchedule
from imdn_kd.errors import InputError
from imdn_kd.losses.flow import FlowLoss
from imdn_kd.losses.variational import LEAST_SPREAD, VariationalAdapter, VariationalLoss
from imdn_kd.registry import LOSS_TERMS


@LOSS_TERMS.register
class FspTerm(FeatureTerm):
    """FSP: the flow from one layer to the next, matched with the teacher's (Yim et al., CVPR 2017).

    https://doi.org/10.1109/CVPR.2017.754. The flow between two layers is the matrix of the inner products of their
    channels over the pixels, divided by the number of pixels; the loss is the mean squared difference of the matrices,
    the mean over the flows from each feature to the next one in the list. Where student and teacher differ in width, a
    1x1 convolution is trained for the student. The paper trains on this loss alone first, then on the task.

    Args:
        at: two features or more, from the earliest to the last; see `FeatureTerm`.
        weight: see `LossTerm`.
        name: by default `l_fsp`.

    Raises:
        InputError: names that cannot be used.
    """

    def __init__(
        self,
        *,
        at: Sequence[str | Mapping[str, str]],
        weight: float | WeightSchedule = 1.0,
        name: str = "l_fsp",
    ) -> None:
        super().__init__(FlowLoss(), at=at, weight=weight, name=name)

    def bind(self, pairs: Sequence[Sequence[FeaturePair]], shares: Sequence[float]) -> None:
        """See `FeatureTerm`.

        Raises:
            InputError: there are fewer than two features.
        """
        if min(map(len, pairs)) < 2:
            raise InputError(
                "FspTerm compares how features follow from earlier ones; name two or more in taps", code=INVALID_OPTIONS
            )
        super().bind(pairs, shares)

    def forward(self, context: StepContext) -> Tensor:
        """See `LossTerm`."""
        parts = []
        for teacher, (several, share) in enumerate(zip(self.pairs, self._shares, strict=True)):
            layers = []
            for number, pair in enumerate(several):
                mine, theirs = self.features(context, teacher, number, pair)
                layers.append((self.adapted(mine, teacher, number), theirs))
            for (mine, theirs), (mine_after, theirs_after) in pairwise(layers):
                ours = pool_to_smaller(mine, mine_after)
                flow: Tensor = self.loss(ours, pool_to_smaller(theirs, theirs_after))
                parts.append(share / (len(several) - 1) * flow)
        return torch.stack(parts).sum()


@LOSS_TERMS.register
class VidTerm(FeatureTerm):
    """Variational information distillation: the likelihood of the teacher's features, given the student's.

    VID (Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05835), used for super-resolution by PISR (Lee et al., ECCV
    2020, https://arxiv.org/abs/2007.07524). Adapters predict a distribution of the teacher's features; they are trained
    with the student, and are no part of it. The loss is the negative log-likelihood, averaged over all values; it may
    be negative.

    Args:
        at: features, see `FeatureTerm`.
        at_weights: see `FeatureTerm`.
        distribution: `gaussian`, with one learned variance for each channel, as in VID, or `laplace`, with a scale for
            each value, predicted from the student's features, as in PISR.
        init_variance: variance at the beginning, above 1e-5; 5 is published, for features of classifiers. The nearer
            it is to the squared error of the prediction, the less must be learned.
        weight: see `LossTerm`.
        name: by default `l_vid`.

    Raises:
        InputError: options that cannot be used.
    """

    def __init__(
        self,
        *,
        at: Sequence[str | Mapping[str, str]],
        at_weights: Sequence[float] | None = None,
        distribution: str = "gaussian",
        init_variance: float = 5.0,
        weight: float | WeightSchedule = 1.0,
        name: str = "l_vid",
    ) -> None:
        super().__init__(
            VariationalLoss(distribution=distribution), at=at, at_weights=at_weights, weight=weight, name=name
        )
        if not LEAST_SPREAD < init_variance < math.inf:
            raise InputError(
                f"init_variance is {init_variance}; give a number above {LEAST_SPREAD:g}, as 5", code=INVALID_OPTIONS
            )
        self.distribution, self.init_variance = distribution, init_variance

    def make_adapter(self, widths: tuple[int, int]) -> nn.Module:
        """See `FeatureTerm`."""
        return VariationalAdapter(widths, distribution=self.distribution, init_variance=self.init_variance)

    def compare(self, context: StepContext, teacher: int, number: int, pair: FeaturePair) -> Tensor:
        """See `FeatureTerm`."""
        mine, theirs = self.features(context, teacher, number, pair)
        location, spread = self.adapted(mine, teacher, number)
        loss: Tensor = self.loss(location, spread, theirs)
        return loss
