"""Attention transfer: where in the image features of student and teacher are large."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, FeatureLoss, check_choice
from imdn_kd.registry import LOSSES

FORMS = ("paper", "code")


@LOSSES.register
class AttentionLoss(FeatureLoss):
    """Distance of the attention maps (Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928, sec. 3.1).

    The map of a sample is the sum of |f|^p over the channels, divided by its L2 norm over the H x W pixels, or by 1e-12
    if that is more: a map of zeros stays one. Only where features are large is compared, not how large. Widths may
    differ.

    Args:
        p: at least 1; the larger, the more the map is that of the largest channel.
        form: `paper`: the L2 norm of the difference, Eq. (2), 0 to sqrt(2) whatever the size; `code`: the mean of the
            squared difference over the pixels, as in the authors' code, so that the loss falls with the size of the
            patches. Both: the mean over the samples.

    Raises:
        InputError: a `p` below 1 or not finite, or another `form`.
    """

    def __init__(self, *, p: float = 2, form: str = "paper") -> None:
        super().__init__()
        if not 1 <= p < math.inf:
            raise InputError(f"p of AttentionLoss is {p}; give a number of at least 1, as 2", code=OUT_OF_RANGE)
        check_choice("AttentionLoss", "form", form, FORMS)
        self.p = p
        self.form = form
        self.summary_name = f"sum of powers {float(p)}"

    def summary(self, features: Tensor) -> Tensor:
        """The sum of the powers, N x 1 x H x W."""
        return features.abs().pow(self.p).sum(1, keepdim=True)

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        difference = functional.normalize(student.flatten(1), dim=1) - functional.normalize(teacher.flatten(1), dim=1)
        if self.form == "code":
            return difference.square().mean()
        # Its gradient is 0, not NaN, where the maps are equal.
        norm: Tensor = torch.linalg.vector_norm(difference, dim=1).mean()
        return norm
