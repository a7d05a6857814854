"""Frequency losses between images: rings of the Fourier spectrum, and sub-bands of the Haar wavelet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, PixelLoss
from imdn_kd.registry import LOSSES


@LOSSES.register
class FrequencyBandLoss(PixelLoss):
    """Weighted sum, over rings of the spectrum, of the mean absolute difference within each.

    The spectrum is that of `FFTLoss` with `norm: ortho`: the half that `torch.fft.rfft2` gives, real and imaginary
    parts apart; with one band, the two losses are the same. With n bands, the k-th (from 0) holds the frequencies from
    k/n to (k+1)/n of the highest that a row can have, half a cycle a pixel, the lower end included; the last one also
    holds what is higher, up to the corners of the spectrum. So with a scale of 4 and four bands, the input has seen
    about the first one. As each band is a mean, the few low frequencies weigh as much as the many high ones.

    Args:
        bands: the weight of each band, from low to high frequencies: at least one, none negative, not all 0. A band
            without a coefficient, as there are in very small images, adds nothing.

    Raises:
        InputError: weights that are no such list.
    """

    def __init__(self, *, bands: Sequence[float] = (1, 1, 1)) -> None:
        super().__init__()
        if not (all(0 <= weight < math.inf for weight in bands) and any(bands)):
            raise InputError(
                f"bands of FrequencyBandLoss is {bands}; give weights of 0 or more, as [1, 1, 2]", code=OUT_OF_RANGE
            )
        self.bands = tuple(bands)

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        parts = torch.view_as_real(torch.fft.rfft2(sr - gt, norm="ortho"))
        magnitudes = parts.abs().mean((0, 1, 4))
        ring = _rings(sr.shape[2], sr.shape[3], len(self.bands), sr.device)
        loss = magnitudes.new_zeros(())
        for index, weight in enumerate(self.bands):
            inside = ring == index
            loss = loss + weight * (magnitudes * inside).sum() / inside.sum().clamp_min(1)
        return loss


def _rings(height: int, width: int, count: int, device: torch.device) -> Tensor:
    """The number of the ring of each coefficient, H x (W // 2 + 1)."""
    rows = torch.arange(height, device=device)
    rows = torch.minimum(rows, height - rows)[:, None]
    columns = torch.arange(width // 2 + 1, device=device)
    # (2 count)^2 times the squared frequency (y/H)^2 + (x/W)^2, both sides times (HW)^2: in whole numbers, no rounding
    # can put a coefficient on the wrong side of an edge.
    squares = (2 * count) ** 2 * ((rows * width) ** 2 + (columns * height) ** 2)
    edges = torch.arange(1, count, device=device) ** 2 * (height * width) ** 2
    return (squares[..., None] >= edges).sum(-1)


@LOSSES.register
class WaveletLoss(PixelLoss):
    """Weighted sum of the mean absolute differences of the sub-bands of the orthonormal Haar wavelet.

    `low` times the mean over the low band of the last level, plus, for each level, `high` times the mean over its three
    bands of details. The transform is orthonormal: where both images are flat, the low band differs by 2^levels times
    what the images do. Any size will do, as in `haar`.

    Args:
        levels: how often the low band is split again, 1 or more.
        low: weight of the low band, not negative.
        high: weight of the details of each level, not negative; only one of the two can be 0.

    Raises:
        InputError: `levels` that is no positive whole number, or weights that are negative or both 0.
    """

    def __init__(self, *, levels: int = 1, low: float = 1, high: float = 1) -> None:
        super().__init__()
        if not (isinstance(levels, int) and levels >= 1):
            raise InputError(
                f"levels of WaveletLoss is {levels!r}; give a positive whole number, as 1", code=OUT_OF_RANGE
            )
        if not (0 <= low < math.inf and 0 <= high < math.inf and low + high > 0):
            raise InputError(
                f"low and high of WaveletLoss are {low} and {high}; give weights of 0 or more, not both 0",
                code=OUT_OF_RANGE,
            )
        self.levels = levels
        self.low = low
        self.high = high

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """See `PixelLoss`."""
        rest = sr - gt  # the transform is linear
        loss = rest.new_zeros(())
        for _ in range(self.levels):
            rest, details = haar(rest)
            loss = loss + self.high * details.abs().mean()
        return loss + self.low * rest.abs().mean()


def haar(images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar wavelet: the low band and the details.

    Blocks of 2 x 2 pixels, a and b above c and d, become (a + b + c + d) / 2 and the three details (a - b + c - d) / 2,
    (a + b - c - d) / 2 and (a - b - c + d) / 2. An odd last row or column is taken twice first, as if the image were
    reflected at its edge.

    Args:
        images: N x C x H x W, floating.

    Returns:
        The low band, N x C x h x w with h = ceil(H / 2) and w = ceil(W / 2), and the details, N x C x 3 x h x w.
    """
    images = even_sided(images)
    upper, lower = images[..., ::2, :] / 2, images[..., 1::2, :] / 2
    sums, differences = upper + lower, upper - lower
    details = (
        sums[..., ::2] - sums[..., 1::2],
        differences[..., ::2] + differences[..., 1::2],
        differences[..., ::2] - differences[..., 1::2],
    )
    return sums[..., ::2] + sums[..., 1::2], torch.stack(details, 2)


def even_sided(images: Tensor) -> Tensor:
    """Repeat an odd last row or column of images N x C x H x W."""
    # Not by `functional.pad`, whose gradient is not the same in every run on CUDA.
    if images.shape[2] % 2:
        images = torch.cat((images, images[..., -1:, :]), 2)
    if images.shape[3] % 2:
        images = torch.cat((images, images[..., -1:]), 3)
    return images


@torch.no_grad()
def twice_details(images: Tensor) -> Tensor:
    """Twice the details of `haar`, faster and without a gradient.

    Args:
        images: N x C x H x W with even sides, floating.

    Returns:
        N x C x 3 x H/2 x W/2.
    """
    upper, lower = images[..., ::2, :], images[..., 1::2, :]
    sums, differences = upper + lower, upper - lower
    # Planar whatever the images are: loops along a row are faster than loops over the channels of a pixel.
    details = images.new_empty(3, *sums.shape[:3], sums.shape[3] // 2)
    torch.sub(sums[..., ::2], sums[..., 1::2], out=details[0])
    torch.add(differences[..., ::2], differences[..., 1::2], out=details[1])
    torch.sub(differences[..., ::2], differences[..., 1::2], out=details[2])
    return details.movedim(0, 2)


@torch.no_grad()
def twice_details_transposed(details: Tensor, out: Tensor) -> None:
    """The transpose of `twice_details`: turn the gradient of its result into that of its images.

    Args:
        details: N x C x 3 x H/2 x W/2.
        out: N x C x H x W, overwritten.
    """
    first, second, third = details.unbind(2)
    sums, differences = (torch.empty_like(out[..., ::2, :]) for _ in range(2))
    sums[..., ::2] = first
    torch.neg(first, out=sums[..., 1::2])
    differences[..., ::2] = second + third
    differences[..., 1::2] = second - third
    torch.add(sums, differences, out=out[..., ::2, :])
    torch.sub(sums, differences, out=out[..., 1::2, :])
