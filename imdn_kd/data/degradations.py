"""Degradations that make LR images from HR images: bicubic downscaling, blur, noise and JPEG, in any order.

Every step maps 8-bit images to 8-bit images, as if files lay between them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import singledispatch
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imdn_kd.config.options import Options
from imdn_kd.data.degradation_schema import Bicubic, Blur, Jpeg, Noise, Step, bounds
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage

Floats = npt.NDArray[np.float32]


@singledispatch
def apply_step(step: Step, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
    """Apply one degradation to an image, H x W (x 3), uint8; its sides are multiples of the numerator of `scale`."""
    raise TypeError(f"{type(step)} is no degradation")


@apply_step.register
def _(step: Bicubic, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
    if scale == 1:
        return image
    height, width = (side // scale.numerator * scale.denominator for side in image.shape[:2])
    return imresize(image, size=(height, width))


@apply_step.register
def _(step: Blur, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
    from scipy.ndimage import gaussian_filter

    sigma = _drawn(step.sigma, random)
    smooth: Floats = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)[: image.ndim], mode="reflect")
    return np.rint(smooth).astype(np.uint8)


@apply_step.register
def _(step: Noise, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
    sigma = np.float32(_drawn(step.sigma, random))
    noisy = image + sigma * random.standard_normal(image.shape, np.float32)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


@apply_step.register
def _(step: Jpeg, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=round(_drawn(step.quality, random)))
    return np.array(Image.open(buffer))


def degrade(image: RgbImage, scale: Fraction, steps: Sequence[Step], key: str) -> RgbImage:
    """Make the LR image of an HR image by a list of degradations.

    Args:
        image: H x W x 3 or H x W, uint8; both sides multiples of the numerator of the scale.
        scale: downscaling factor.
        steps: degradations in order; `Bicubic` among them, unless the scale is 1.
        key: seeds the random numbers: the same key gives the same image.
    """
    # Philox gives the same stream everywhere; `Generator` might change its methods between versions of numpy, which
    # the manifest of a store names.
    random = np.random.Generator(np.random.Philox(zlib.crc32(key.encode())))
    for step in steps:
        image = apply_step(step, image, scale, random)
    return image


def describe(steps: Sequence[Options]) -> list[dict[str, Any]]:
    """The degradations as JSON."""
    return [step.model_dump(mode="json") for step in steps]


def _drawn(value: float | list[float], random: np.random.Generator) -> float:
    low, high = bounds(value)
    return low if low == high else float(random.uniform(low, high))
