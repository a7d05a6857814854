"""Mimic loss: features of student and teacher compared value by value."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from imdn_kd.losses.base import FeatureLoss, check_choice
from imdn_kd.registry import LOSSES

DISTANCES = {"l1": functional.l1_loss, "l2": functional.mse_loss}
"""Mean of absolute and of squared differences, by the name that options have for them."""


@LOSSES.register
class MimicLoss(FeatureLoss):
    """Mean squared, or absolute, difference of features of the same width.

    The hint of FitNets (Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550, section 2.2) and the mimicking of Li
    et al. (CVPR 2017, https://doi.org/10.1109/CVPR.2017.776). Both train an adapter behind the student, a 1x1
    convolution from its width to the teacher's. It is no part of this loss, which has no weights: `FeatureTerm` adds it
    where the widths differ, and it is not exported.

    Attributes:
        adapts: asks `FeatureTerm` to do so.

    Args:
        distance: `l2`: squared differences; `l1`: absolute ones.

    Raises:
        InputError: another `distance`.
    """

    requires_same_channels = True
    adapts = True

    def __init__(self, *, distance: str = "l2") -> None:
        super().__init__()
        check_choice("MimicLoss", "distance", distance, DISTANCES)
        self.distance = distance

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        return DISTANCES[self.distance](student, teacher)
