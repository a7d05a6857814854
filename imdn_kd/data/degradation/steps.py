"""From HR images to LR images by steps of degradation.

Every step maps 8-bit images to 8-bit images, as if files lay between them.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from fractions import Fraction
from functools import singledispatch
from typing import Any

import numpy as np

from imdn_kd.data.degradation import pixels
from imdn_kd.data.degradation.kernels import blur_kernel, convolve, sinc_kernel
from imdn_kd.data.degradation.pixels import Floats
from imdn_kd.data.degradation.ranges import drawn, one_of
from imdn_kd.data.degradation.real_esrgan import real_esrgan
from imdn_kd.data.degradation.real_esrgan_schema import RealEsrgan
from imdn_kd.data.degradation.schema import Bicubic, Blur, Jpeg, Noise, Poisson, Resize, Sinc, Step
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage

Size = tuple[int, int]


@singledispatch
def apply_step(step: Step, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    """Apply one degradation to an image, H x W (x 3), uint8; `target` is (height, width) of the LR image."""
    raise TypeError(f"{type(step)} is no degradation")


@apply_step.register
def _(step: Bicubic, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    return image if image.shape[:2] == target else imresize(image, size=target)


@apply_step.register
def _(step: Blur, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    from scipy.ndimage import gaussian_filter

    sigma = drawn(step.sigma, random)
    if step.shape is None:
        smooth: Floats = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)[: image.ndim], mode="reflect")
        return np.rint(smooth).astype(np.uint8)
    other, angle = drawn(step.sigma, random), random.uniform(-math.pi, math.pi)
    kernel = blur_kernel(step.shape, step.size, sigma, other, angle, drawn(step.beta, random))
    return _to_bytes(convolve(_to_floats(image), kernel), image)


@apply_step.register
def _(step: Sinc, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    kernel = sinc_kernel(step.size, drawn(step.cutoff, random))
    return _to_bytes(convolve(_to_floats(image), kernel), image)


@apply_step.register
def _(step: Resize, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    factor = drawn(step.factor, random)
    height, width = (max(1, int(side * factor)) for side in image.shape[:2])
    return _to_bytes(pixels.resize(_to_floats(image), (height, width), one_of(step.mode, random)), image)


@apply_step.register
def _(step: Noise, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    sigma = np.float32(drawn(step.sigma, random))
    shape = (*image.shape[:2], 1) if image.ndim == 3 and _happens(step.grey_prob, random) else image.shape
    noisy = image + sigma * random.standard_normal(shape, np.float32)
    return np.rint(noisy).clip(0, 255).astype(np.uint8)


@apply_step.register
def _(step: Poisson, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    scale, grey = drawn(step.scale, random), _happens(step.grey_prob, random)
    return _to_bytes(pixels.poisson_noise(_to_floats(image), scale, random, grey=grey), image)


@apply_step.register
def _(step: Jpeg, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    return _to_bytes(pixels.jpeg(_to_floats(image), round(drawn(step.quality, random))), image)


@apply_step.register
def _(step: RealEsrgan, image: RgbImage, target: Size, random: np.random.Generator) -> RgbImage:
    return _to_bytes(real_esrgan(step, _to_floats(image), target, random), image)


def degrade(image: RgbImage, scale: Fraction, steps: Sequence[Step], random: np.random.Generator | str) -> RgbImage:
    """Make the LR image of an HR image by a list of degradations.

    Args:
        image: H x W x 3 or H x W, uint8; both sides multiples of the numerator of the scale.
        scale: downscaling factor.
        steps: degradations in order; see `check_steps`.
        random: source of random numbers, or a text that seeds one: the same text gives the same image.
    """
    if isinstance(random, str):
        # Philox gives the same stream everywhere; `Generator` might change its methods between versions of numpy, which
        # the manifest of a store names.
        random = np.random.Generator(np.random.Philox(zlib.crc32(random.encode())))
    height, width = (side // scale.numerator * scale.denominator for side in image.shape[:2])
    for step in steps:
        if isinstance(step, (Bicubic, RealEsrgan)) or _happens(step.prob, random):
            image = apply_step(step, image, (height, width), random)
    return image


def describe(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """The degradations as JSON, without what is as usual."""
    return [{"type": step.type} | step.model_dump(mode="json", exclude_defaults=True) for step in steps]


def _happens(probability: float, random: np.random.Generator) -> bool:
    # Nothing is drawn where nothing is left to chance, so that other draws stay the same.
    return probability >= 1 or (probability > 0 and random.random() < probability)


def _to_floats(image: RgbImage) -> Floats:
    """H x W (x C) as H x W x C, 0 to 1."""
    planes = image[..., None] if image.ndim == 2 else image
    return planes.astype(np.float32) / np.float32(255)


def _to_bytes(values: Floats, like: RgbImage) -> RgbImage:
    result: RgbImage = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return result[..., 0] if like.ndim == 2 else result
