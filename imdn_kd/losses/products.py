"""Inner products of channels, for losses that compare them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def products_of(one: Tensor, other: Tensor) -> Tensor:
    """Inner products of all pairs of rows, N x C x D from N x C x P and N x D x P."""
    result: Tensor = _Products.apply(one, other)
    return result


class _Products(torch.autograd.Function):
    """A product of matrices whose gradient is computed without autocast, even where the backward pass has one."""

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(one, other)
        return one @ other.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        one, other = ctx.saved_tensors
        with torch.autocast(upstream.device.type, enabled=False):
            return upstream @ other, upstream.mT @ one
