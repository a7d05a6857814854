"""Blur kernels: Gaussian, generalised Gaussian, plateau, and sinc, isotropic or not.

As in Real-ESRGAN (Wang et al., ICCVW 2021, https://arxiv.org/abs/2107.10833); its generalised Gaussian and its plateau
are those of Liu et al., "Estimating Generalized Gaussian Blur Kernels for Out-of-Focus Image Deblurring", TCSVT 2021,
https://doi.org/10.1109/TCSVT.2020.2990623.
"""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import numpy.typing as npt

from imdn_kd.data.degradation.ranges import Shape

Floats = npt.NDArray[np.float32]
Kernel = npt.NDArray[np.float64]
SHAPES: tuple[Shape, ...] = get_args(Shape)


def blur_kernel(
    shape: Shape, size: int, sigma_x: float, sigma_y: float, angle: float = 0.0, beta: float = 1.0
) -> Kernel:
    """A normalised kernel, size x size.

    Args:
        shape: with the squared distance d in units of sigma: `gaussian` exp(-d/2), `generalized` exp(-d^beta/2),
            `plateau` 1 / (1 + d^beta).
        size: odd, px.
        sigma_x: standard deviation along the first axis, px.
        sigma_y: along the other.
        angle: by which the axes are turned, radians.
        beta: of the shapes that have one.
    """
    offsets = np.arange(size) - size // 2
    x, y = np.meshgrid(offsets, offsets)
    along, across = (
        math.cos(angle) * x + math.sin(angle) * y,
        -math.sin(angle) * x + math.cos(angle) * y,
    )
    distance = (along / sigma_x) ** 2 + (across / sigma_y) ** 2
    if shape == "gaussian":
        kernel = np.exp(-0.5 * distance)
    elif shape == "generalized":
        kernel = np.exp(-0.5 * distance**beta)
    else:
        kernel = 1 / (distance**beta + 1)
    result: Kernel = kernel / kernel.sum()
    return result


def sinc_kernel(size: int, cutoff: float) -> Kernel:
    """The circular low-pass filter, which leaves rings as sharpening and compression do; size x size, normalised.

    Args:
        size: odd, px.
        cutoff: frequency, radians per px, up to pi.
    """
    from scipy.special import j1

    offsets = np.arange(size) - size // 2
    radius = np.hypot(*np.meshgrid(offsets, offsets))
    radius[size // 2, size // 2] = 1.0
    kernel = cutoff * j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    result: Kernel = kernel / kernel.sum()
    return result


def convolve(image: Floats, kernel: Kernel) -> Floats:
    """`image` H x W x C blurred by a kernel, its borders mirrored without repeating the last px."""
    from scipy.signal import fftconvolve

    half = kernel.shape[0] // 2
    padded = np.pad(image, ((half, half), (half, half), (0, 0)), mode="reflect")
    # A correlation, as in OpenCV's `filter2D`.
    turned = kernel[::-1, ::-1, None].astype(np.float32)
    result: Floats = fftconvolve(padded, turned, mode="valid", axes=(0, 1))
    return result
