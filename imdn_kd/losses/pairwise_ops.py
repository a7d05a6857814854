"""Mean difference of the dot products of pairs of vectors, with its gradient, in bounded memory.

Vectors are columns: of `B x C x N`, each sample has N vectors of C numbers. The teacher has as many vectors as the
student, perhaps of another length. The gradient is computed with the value, chunk by chunk, so that nothing of
the size of all pairs is ever kept; so it cannot be differentiated twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

DISTANCES = ("l1", "l2")
"""Ways to compare two affinities: the absolute or the squared difference."""

UNIT_VECTORS = "unit vectors"
"""Name of the summary that is made of `l2_normalize`; see `FeatureLoss`."""

Area = tuple[slice, slice, slice, slice]
_NO_DIRECTION = 1e-12
_CHUNK = 2**22
"""Values that a chunk of the work holds in one tensor, at most: 16 MiB in float32."""


def l2_normalize(vectors: Tensor, dim: int = 1) -> Tensor:
    """Scale vectors along `dim` to length 1.

    A vector shorter than 1e-12 has no direction that means anything: it becomes 0 and gets no gradient.
    """
    # Not `vector_norm`, which sums naively: of 10^5 numbers, an error of 1e-6.
    squares = vectors.square().sum(dim, keepdim=True)
    return vectors * torch.where(squares > _NO_DIRECTION**2, squares.clamp_min(_NO_DIRECTION**2).rsqrt(), 0)


def all_pairs(student: Tensor, teacher: Tensor, distance: str) -> Tensor:
    """Mean over the samples and all N^2 ordered pairs, a vector with itself included.

    Args:
        student: B x C x N.
        teacher: B x D x N, without a gradient.
        distance: one of `DISTANCES`.
    """
    (_, c, n), d = student.shape, teacher.shape[1]
    # Twice, for float64 on one side and the symmetry of the tiles on the other; measured, too.
    fewer_products = 2 * (c * c + d * d + c * d) < n * (c + d)
    wants_gradient = _wants_gradient(student)
    with torch.no_grad():
        # float64, which the short way needs, does not exist on MPS.
        if distance == "l2" and fewer_products and student.device.type != "mps":
            total, gradient = _from_channels(student, teacher, wants_gradient)
        else:
            total, gradient = _from_tiles(student, teacher, distance, wants_gradient)
    return _mean(student, total, gradient, student.shape[0] * n**2)


def local_pairs(student: Tensor, teacher: Tensor, distance: str, *, alpha: int, include_self: bool) -> Tensor:
    """Mean over the samples and the ordered pairs of vectors that are at most `alpha` rows and columns apart.

    Args:
        student: B x C x H x W, a vector at each position.
        teacher: B x D x H x W, without a gradient.
        distance: one of `DISTANCES`.
        alpha: 1 or more.
        include_self: pair each vector with itself, too. Without, a map of 1 x 1 has no pairs and the mean is 0.
    """
    s, t = student.detach(), teacher
    total, count = s.new_zeros(()), 0
    gradient = torch.zeros_like(s) if _wants_gradient(student) else None
    with torch.no_grad():
        for here, there in neighbours(s.shape[2], s.shape[3], alpha):
            if here == there and not include_self:
                continue
            difference = (s[here] * s[there]).sum(1) - (t[here] * t[there]).sum(1)
            times = 1 if here == there else 2
            count += times * difference.numel()
            total += times * _cost(difference, distance).sum()
            if gradient is not None:
                slope = (times * _slope_(difference, distance)).unsqueeze(1)
                gradient[here].addcmul_(slope, s[there])
                gradient[there].addcmul_(slope, s[here])
    return _mean(student, total, gradient, max(count, 1))


def neighbours(height: int, width: int, alpha: int) -> Iterator[tuple[Area, Area]]:
    """Yield the two areas of a map that are laid over each other to pair places at most `alpha` rows and columns apart.

    The first is the whole map with itself; of each two opposite shifts there is one, so the other pairs count twice.
    """
    every = slice(None)
    for down in range(min(alpha, height - 1) + 1):
        reach = min(alpha, width - 1)
        for right in range(-reach if down else 0, reach + 1):
            left = slice(max(-right, 0), width - max(right, 0))
            shifted = slice(max(right, 0), width - max(-right, 0))
            yield (every, every, slice(0, height - down), left), (every, every, slice(down, height), shifted)


def _from_channels(student: Tensor, teacher: Tensor, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Sum of squares by ||S'S - T'T||^2 = ||SS'||^2 + ||TT'||^2 - 2 ||ST'||^2: products of channels, not of vectors.

    In float64, since all but the difference cancels: in float32, nothing would be left of a loss below 1e-7.
    """
    (b, c, n), d = student.shape, teacher.shape[1]
    total = student.new_zeros((), dtype=torch.float64)
    gradient = torch.empty_like(student) if wants_gradient else None
    step = max(1, _CHUNK // (2 * n * (c + d)))
    for first in range(0, b, step):
        some = slice(first, first + step)
        s, t = student[some].double(), teacher[some].double()
        ss, tt, st = s @ s.mT, t @ t.mT, s @ t.mT
        total += ss.square().sum() + tt.square().sum() - 2 * st.square().sum()
        if gradient is not None:
            gradient[some] = 4 * torch.baddbmm(ss @ s, st, t, alpha=-1)
    return total.clamp_min(0), gradient


def _from_tiles(student: Tensor, teacher: Tensor, distance: str, wants_gradient: bool) -> tuple[Tensor, Tensor | None]:
    """Sum over tiles of the matrix of all pairs; those below the diagonal mirror those above it."""
    b, _, n = student.shape
    total = student.new_zeros(())
    gradient = torch.zeros_like(student) if wants_gradient else None
    parts = [slice(k, k + max(1, math.isqrt(_CHUNK // b))) for k in range(0, n, max(1, math.isqrt(_CHUNK // b)))]
    for row, rows in enumerate(parts):
        for columns in parts[row:]:
            s, t = student[..., columns], teacher[..., columns]
            difference = (student[..., rows].mT @ s).sub_(teacher[..., rows].mT @ t)
            total += (1 if rows == columns else 2) * _cost(difference, distance).sum()
            if gradient is not None:
                slope = 2 * _slope_(difference, distance)
                gradient[..., columns] += student[..., rows] @ slope
                if rows != columns:
                    gradient[..., rows] += s @ slope.mT
    return total, gradient


def _cost(difference: Tensor, distance: str) -> Tensor:
    return difference.abs() if distance == "l1" else difference.square()


def _slope_(difference: Tensor, distance: str) -> Tensor:
    """Derivative of `_cost`, in place."""
    return difference.sign_() if distance == "l1" else difference.mul_(2)


def _wants_gradient(student: Tensor) -> bool:
    return student.requires_grad and torch.is_grad_enabled()


def _mean(student: Tensor, total: Tensor, gradient: Tensor | None, count: int) -> Tensor:
    mean = (total / count).to(student.dtype)
    if gradient is None:
        return mean
    loss: Tensor = _PrecomputedGrad.apply(student, mean, gradient.div_(count))
    return loss


class _PrecomputedGrad(torch.autograd.Function):
    """A value whose gradient for `student` is already computed."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, value: Tensor, gradient: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None
