"""Losses between images, pixel by pixel or by spectrum, under BasicSR's names."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, PixelLoss, check_choice
from imdn_kd.registry import LOSSES

NORMS = ("backward", "ortho", "forward")
"""Normalisations of a spectrum, as in `torch.fft`."""


@LOSSES.register
class L1Loss(PixelLoss):
    """Mean of |sr - gt|."""

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        # The gradient of a mean has the size of the images; that of a sum is one number.
        return functional.l1_loss(sr, gt, reduction="sum") / sr.numel()


@LOSSES.register
class MSELoss(PixelLoss):
    """Mean of (sr - gt)^2."""

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        return functional.mse_loss(sr, gt)


@LOSSES.register
class CharbonnierLoss(PixelLoss):
    """Mean of sqrt((sr - gt)^2 + eps), an L1 loss that is smooth at 0.

    From LapSRN (Lai et al., CVPR 2017, https://arxiv.org/abs/1704.03915). Equal images have a loss of sqrt(eps), not 0.

    Args:
        eps: positive; without it, the gradient would be infinite at 0. The square of the epsilon of the paper.

    Raises:
        InputError: `eps` is not positive.
    """

    def __init__(self, *, eps: float = 1e-12) -> None:
        super().__init__()
        # Below, float32 would round it to 0, or to numbers that GPUs may take for 0.
        if not torch.finfo(torch.float32).tiny <= eps < math.inf:
            raise InputError(f"eps of CharbonnierLoss is {eps}; give a positive number, as 1e-12", code=OUT_OF_RANGE)
        self.eps = eps

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        return ((sr - gt).square() + self.eps).sqrt().mean()


@LOSSES.register
class FFTLoss(PixelLoss):
    """Mean absolute difference of the spectra, real and imaginary parts apart.

    Over the half of the spectrum that `torch.fft.rfft2` gives, as in SAFMN (Sun et al., ICCV 2023,
    https://arxiv.org/abs/2302.13800). MIMO-UNet (Cho et al., ICCV 2021, https://arxiv.org/abs/2108.05054), where the
    loss comes from, takes the mean over both halves, which mirror each other. With `norm: backward`, as there, it is
    far larger than an L1 loss and grows with the images; published weights are 0.05 to 0.1.

    Args:
        norm: `backward`: the plain sum over the pixels; `ortho`: divided by sqrt(HW); `forward`: by HW.

    Raises:
        InputError: another `norm`.
    """

    def __init__(self, *, norm: str = "backward") -> None:
        super().__init__()
        check_choice("FFTLoss", "norm", norm, NORMS)
        self.norm = norm

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        # The transform is linear: that of the difference is the difference of both, at half the cost.
        return torch.view_as_real(torch.fft.rfft2(sr - gt, norm=self.norm)).abs().mean()
