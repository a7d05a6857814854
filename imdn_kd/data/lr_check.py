"""Comparison of given LR images with the bicubic ones of their HR images, which published tables are made from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage

BICUBIC_PSNR = 50.0
"""PSNR in dB from which LR images count as bicubic.

On Set5, x2 to x4: the published LR files are equal to ours, Pillow's bicubic and PyTorch's with antialiasing have 51 to
61 dB; Lanczos 37 to 49.7, box 36 to 47, JPEG of quality 95 38 to 44, bicubic without antialiasing 22 to 40, a shift by
one px of the HR image 23 to 35.
"""

_EXPLAINED = 0.5  # part of the squared difference that a shift must explain


@dataclass(frozen=True)
class BicubicComparison:
    """How far an LR image is from the bicubic one.

    Attributes:
        psnr: dB; inf if they are equal.
        shift: (down, right) of the LR image against the bicubic one, in px of the HR image; None if the difference is
            not that of a shift.
    """

    psnr: float
    shift: tuple[float, float] | None


def compare_with_bicubic(hr: RgbImage, lr: RgbImage) -> BicubicComparison:
    """Compare an LR image, H x W x 3 or H x W, with the bicubic one of its HR image, sH x sW x 3 or sH x sW.

    The shift is that of one step of Lucas and Kanade (IJCAI 1981, https://dl.acm.org/doi/10.5555/1623264.1623280):
    least squares on the gradients of the image.
    """
    wanted, given = (np.atleast_3d(image).mean(axis=2) for image in (imresize(hr, size=lr.shape[:2]), lr))
    difference = given - wanted
    error = float(np.square(difference).mean())
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    scale = hr.shape[0] / lr.shape[0]
    shift = _shift(wanted, difference) if psnr < BICUBIC_PSNR and min(wanted.shape) > 2 else None
    return BicubicComparison(psnr, shift and (scale * shift[0], scale * shift[1]))


def describe_misfit(comparisons: Iterable[tuple[str, BicubicComparison]]) -> str:
    """Say how many LR images are not bicubic, and in what way; empty if all are.

    Args:
        comparisons: names of the images of a set, and their comparisons.
    """
    every = list(comparisons)
    differing = [(name, found) for name, found in every if found.psnr < BICUBIC_PSNR]
    if not differing:
        return ""
    name, worst = min(differing, key=lambda each: each[1].psnr)
    count = f"{len(differing)} of {len(every)}" if len(differing) < len(every) else f"all {len(every)}"
    mean = fmean(found.psnr for _, found in differing)
    line = f"{count} differ from MATLAB's bicubic of the HR images (PSNR {mean:.1f} dB, {name} {worst.psnr:.1f})"
    shifts = [found.shift for _, found in differing if found.shift is not None]
    if len(shifts) > len(differing) / 2:
        down, right = (fmean(column) for column in zip(*shifts, strict=True))
        return f"{line}: they are shifted by about {right:+.1f} px to the right and {down:+.1f} px down"
    return f"{line}: another kernel, or another degradation"


def _shift(image: npt.NDArray[np.float64], difference: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    inner = difference[1:-1, 1:-1].ravel()
    gradients = np.stack([np.gradient(image, axis=axis)[1:-1, 1:-1].ravel() for axis in (0, 1)], 1)
    solution, *_ = np.linalg.lstsq(-gradients, inner, rcond=None)
    left = inner + gradients @ solution
    if np.square(left).sum() > (1 - _EXPLAINED) * np.square(inner).sum():
        return None
    return float(solution[0]), float(solution[1])
