"""Mean difference of the affinities of pairs of vectors, with its gradient, in bounded memory.

The affinity of two vectors is their dot product c or, with `gamma`, exp(-2 gamma (1 - c)): for unit vectors, the
Gaussian kernel exp(-gamma |x - y|^2).

Vectors are columns: of `B x C x N`, each sample has N vectors of C numbers. The teacher has as many vectors as the
student, perhaps of another length. The gradient is computed with the value, chunk by chunk, so that nothing of
the size of all pairs is ever kept; so it cannot be differentiated twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
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


def all_pairs(student: Tensor, teacher: Tensor, distance: str, *, gamma: float | None = None) -> Tensor:
    """Mean over the samples and all N^2 ordered pairs, a vector with itself included.

    Args:
        student: B x C x N.
        teacher: B x D x N, without a gradient.
        distance: one of `DISTANCES`.
        gamma: of the Gaussian kernel; None compares dot products.
    """
    (_, c, n), d = student.shape, teacher.shape[1]
    # Twice, for float64 on one side and the symmetry of the tiles on the other; measured, too.
    fewer_products = 2 * (c * c + d * d + c * d) < n * (c + d)
    wants_gradient = _wants_gradient(student)
    with torch.no_grad():
        # float64, which the short way needs, does not exist on MPS.
        if gamma is None and distance == "l2" and fewer_products and student.device.type != "mps":
            total, gradient = _from_channels(student, teacher, wants_gradient)
        else:
            total, gradient = _from_tiles(student, teacher, distance, wants_gradient, gamma)
    return _mean(student, total, gradient, student.shape[0] * n**2)


def nearest_pairs(student: Tensor, teacher: Tensor, distance: str, *, count: int, gamma: float | None = None) -> Tensor:
    """Mean over the samples and the ordered pairs of a vector and one of the `count` nearest, itself among them.

    Args:
        student: B x C x H x W, a vector at each position.
        teacher: B x D x H x W, without a gradient.
        distance: one of `DISTANCES`.
        count: 1 to H * W; see `nearest`.
        gamma: see `all_pairs`.
    """
    # A row for each position: rows are gathered and added to faster than columns.
    s, t = (maps.detach().flatten(2).permute(2, 0, 1).contiguous() for maps in (student, teacher))
    total = s.new_zeros(())
    gradient = torch.zeros_like(s) if _wants_gradient(student) else None
    partners = nearest(student.shape[2], student.shape[3], count).to(student.device)
    with torch.no_grad():
        for others in partners:
            theirs = s[others]
            ours = _affinity_((s * theirs).sum(2), gamma)
            difference = ours - _affinity_((t * t[others]).sum(2), gamma)
            total += _cost(difference, distance).sum()
            if gradient is not None:
                slope = _slope_(difference, ours, distance, gamma).unsqueeze(2)
                gradient.addcmul_(slope, theirs).index_add_(0, others, slope * s)
        if gradient is not None:
            gradient = gradient.permute(1, 2, 0).reshape(student.shape)
    return _mean(student, total, gradient, partners.numel() * len(student))


@lru_cache(maxsize=8)
def nearest(height: int, width: int, count: int) -> Tensor:
    """The `count` nearest positions of each position of a map: `count` x H * W, row by row, the position itself first.

    Nearest by the Chebyshev distance, then by the Euclidean one; the upper, then the left one, of those as near.
    """
    reach = 0  # as far as a corner needs, which has the fewest around it
    while min(reach + 1, height) * min(reach + 1, width) < count:
        reach += 1
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    order = np.lexsort((right, down, down**2 + right**2, np.maximum(abs(down), abs(right))))
    down, right = down[order], right[order]
    columns = np.arange(width)[:, None] + right
    found = []
    for row in range(height):
        inside = (row + down >= 0) & (row + down < height) & (columns >= 0) & (columns < width)
        inside &= inside.cumsum(1) <= count
        places = (row + down) * width + columns
        found.append(places[inside].reshape(width, count))
    return torch.from_numpy(np.concatenate(found).T.copy())


def neighbour_pairs(student: Tensor, teacher: Tensor, distance: str) -> Tensor:
    """Mean over the samples and the ordered pairs of vectors next to each other, diagonally too; 0 without any.

    Args:
        student: B x C x H x W, a vector at each position.
        teacher: B x D x H x W, without a gradient.
        distance: one of `DISTANCES`.
    """
    s, t = student.detach(), teacher
    total, count = s.new_zeros(()), 0
    gradient = torch.zeros_like(s) if _wants_gradient(student) else None
    with torch.no_grad():
        for here, there in neighbours(s.shape[2], s.shape[3]):
            ours = (s[here] * s[there]).sum(1)
            difference = ours - (t[here] * t[there]).sum(1)
            count += 2 * difference.numel()
            total += 2 * _cost(difference, distance).sum()
            if gradient is not None:
                slope = 2 * _slope_(difference, ours, distance, None).unsqueeze(1)
                gradient[here].addcmul_(slope, s[there])
                gradient[there].addcmul_(slope, s[here])
    return _mean(student, total, gradient, max(count, 1))


def neighbours(height: int, width: int) -> Iterator[tuple[Area, Area]]:
    """Yield the two areas of a map that are laid over each other to pair each place with its 8 neighbours.

    Of each two opposite shifts there is one, so that all pairs count twice.
    """
    every = slice(None)
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1)):
        if down < height and abs(right) < width:
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


def _from_tiles(
    student: Tensor, teacher: Tensor, distance: str, wants_gradient: bool, gamma: float | None = None
) -> tuple[Tensor, Tensor | None]:
    """Sum over tiles of the matrix of all pairs; those below the diagonal mirror those above it."""
    b, _, n = student.shape
    total = student.new_zeros(())
    gradient = torch.zeros_like(student) if wants_gradient else None
    parts = [slice(k, k + max(1, math.isqrt(_CHUNK // b))) for k in range(0, n, max(1, math.isqrt(_CHUNK // b)))]
    for row, rows in enumerate(parts):
        for columns in parts[row:]:
            s, t = student[..., columns], teacher[..., columns]
            ours = _affinity_(student[..., rows].mT @ s, gamma)
            difference = ours - _affinity_(teacher[..., rows].mT @ t, gamma)
            total += (1 if rows == columns else 2) * _cost(difference, distance).sum()
            if gradient is not None:
                slope = 2 * _slope_(difference, ours, distance, gamma)
                gradient[..., columns] += student[..., rows] @ slope
                if rows != columns:
                    gradient[..., rows] += s @ slope.mT
    return total, gradient


def _cost(difference: Tensor, distance: str) -> Tensor:
    return difference.abs() if distance == "l1" else difference.square()


def _affinity_(products: Tensor, gamma: float | None) -> Tensor:
    """Affinities of vectors from their dot products, in place."""
    return products if gamma is None else products.sub_(1).mul_(2 * gamma).exp_()


def _slope_(difference: Tensor, ours: Tensor, distance: str, gamma: float | None) -> Tensor:
    """Derivative of `_cost` by the student's dot product, in place; `ours` is the affinity that this gave."""
    slope = difference.sign_() if distance == "l1" else difference.mul_(2)
    return slope if gamma is None else slope.mul_(ours).mul_(2 * gamma)


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
