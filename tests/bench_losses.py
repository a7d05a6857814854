"""Benches of losses against what a user would otherwise write."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.losses.affinity import PairwiseLoss

Compare = Callable[..., float]
BATCH, CHANNELS, SIDE = 16, 64, 48


def plain_pairwise(student: Tensor, teacher: Tensor) -> Tensor:
    """The formula as it stands: two matrices of all pairs, and their mean squared difference."""
    ours, theirs = (functional.normalize(features, dim=1).flatten(2) for features in (student, teacher))
    return functional.mse_loss(ours.mT @ ours, theirs.mT @ theirs)


def pairwise(compare: Compare) -> None:
    """Forward and backward, every pixel connected with every other."""
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.rand(BATCH, CHANNELS, SIDE, SIDE, generator=generator) for _ in range(2))
    student.requires_grad_()

    def run(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(student, teacher), student)

    title = f"pair-wise loss, all pairs / N x N form, {BATCH} x {CHANNELS} x {SIDE} x {SIDE}"
    compare(f"{title}, forward and backward", run(PairwiseLoss()), run(plain_pairwise))
