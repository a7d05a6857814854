"""Losses between distributions: of a channel over the pixels, and of the channels themselves."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, FeatureLoss, check_choice
from imdn_kd.losses.products import products_of
from imdn_kd.registry import LOSSES

KERNELS = ("linear", "poly", "rbf")


@LOSSES.register
class ChannelDistributionLoss(FeatureLoss):
    """Channel-wise distillation (CWD; Shu et al., ICCV 2021, https://arxiv.org/abs/2011.13256, section 3.2).

    The softmax of each channel over the pixels, at a temperature, is a distribution that says where the channel is
    active. The loss is temperature^2 * KL(teacher || student), the mean over channels and samples. It takes the place
    of SKD's KL term where there are no classes.

    Args:
        temperature: above 0; published with 4 for features and outputs of segmentation networks. The larger, the more
            pixels count.

    Raises:
        InputError: a temperature that is not above 0.
    """

    requires_same_channels = True
    adapts = True

    def __init__(self, *, temperature: float = 4) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise InputError(
                f"temperature of ChannelDistributionLoss is {temperature}; give a number above 0, as 4",
                code=OUT_OF_RANGE,
            )
        self.temperature = temperature

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        ours, theirs = (functional.log_softmax(maps.flatten(2) / self.temperature, 2) for maps in (student, teacher))
        divergence = functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(2)
        return self.temperature**2 * divergence.mean()


@LOSSES.register
class MmdLoss(FeatureLoss):
    """Neuron selectivity transfer (NST; Huang and Wang, 2017, https://arxiv.org/abs/1707.01219, section 4).

    Each channel, divided by its L2 norm over the pixels, is a sample of where a network looks; the loss is the squared
    maximum mean discrepancy of the channels of student and teacher, the mean over the samples of the batch: mean k(t,
    t') + mean k(s, s') - 2 mean k(s, t). Widths may differ.

    Args:
        kernel: `linear`: x^T y; `poly`: (x^T y)^2, the best of the paper; `rbf`: exp(-|x - y|^2 / (2 sigma^2)), with
            sigma^2 the mean squared distance between channels of student and teacher.

    Raises:
        InputError: another kernel.
    """

    def __init__(self, *, kernel: str = "poly") -> None:
        super().__init__()
        check_choice("MmdLoss", "kernel", kernel, KERNELS)
        self.kernel = kernel

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        ours, theirs = (functional.normalize(maps.flatten(2), dim=2) for maps in (student, teacher))
        between = products_of(ours, theirs)
        width = None
        if self.kernel == "rbf":
            width = _squared_distances(ours, theirs, between).mean((1, 2), keepdim=True).clamp_min(1e-12)

        def mean(one: Tensor, other: Tensor, products: Tensor) -> Tensor:
            if width is not None:
                products = torch.exp(-_squared_distances(one, other, products) / (2 * width))
            return (products.square() if self.kernel == "poly" else products).mean((1, 2))

        within = mean(theirs, theirs, products_of(theirs, theirs)) + mean(ours, ours, products_of(ours, ours))
        return (within - 2 * mean(ours, theirs, between)).mean()


def _squared_distances(one: Tensor, other: Tensor, products: Tensor) -> Tensor:
    """Of all pairs of rows, N x C x D."""
    return one.square().sum(2, keepdim=True) + other.square().sum(2, keepdim=True).mT - 2 * products
