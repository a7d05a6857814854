"""Features of student and teacher compared by where in the image they are large."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, FeatureLoss, check_choice
from imdn_kd.registry import LOSSES

FORMS = ("paper", "code")


@LOSSES.register
class AttentionLoss(FeatureLoss):
    """Squared distance of the attention maps (Zagoruyko and Komodakis, ICLR 2017, section 3.1).

    The map of a sample is the sum of |f|^p over the channels, divided by its L2 norm over the H x W pixels, or by 1e-12
    if that is more: a map of zeros stays one. Only where features are large is compared, not how large. Widths may
    differ.

    Args:
        p: at least 1; the larger, the more the map is that of the largest channel.
        form: `paper`: the sum over the pixels, 0 to 2 whatever the size; `code`: the mean over the pixels, as in the
            code of the authors, so that the loss falls with the size of the patches. Both: the mean over the samples.

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

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """As in `FeatureLoss`."""
        squares = (self._map(student) - self._map(teacher)).square()
        return squares.mean() if self.form == "code" else squares.sum(1).mean()

    def _map(self, features: Tensor) -> Tensor:
        return functional.normalize(features.abs().pow(self.p).sum(1).flatten(1), dim=1)
