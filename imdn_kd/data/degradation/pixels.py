"""Noise, JPEG and resizing of images as floats, H x W x C, black 0 and white 1."""

from __future__ import annotations

import math
from io import BytesIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from imdn_kd.data.degradation.ranges import Interpolation

Floats = npt.NDArray[np.float32]

_GREY = np.array([0.2989, 0.587, 0.114], np.float32)
"""Weights of R, G and B, as torchvision's `rgb_to_grayscale` has them."""


def gaussian_noise(image: Floats, sigma: float, random: np.random.Generator, *, grey: bool = False) -> Floats:
    """Add white noise of standard deviation `sigma` (of the range), the same for all channels if `grey`."""
    shape = (*image.shape[:2], 1) if grey else image.shape
    return image + np.float32(sigma) * random.standard_normal(shape, np.float32)


def poisson_noise(image: Floats, scale: float, random: np.random.Generator, *, grey: bool = False) -> Floats:
    """Add `scale` times the shot noise that an image has whose levels count photons.

    As in Real-ESRGAN, white stands for as many photons as the image has different 8-bit levels, rounded up to a power
    of two.
    """
    source = (image @ _GREY)[..., None] if grey and image.shape[2] == 3 else image
    levels = np.rint(source.clip(0, 1) * 255) / np.float32(255)
    photons = 2 ** math.ceil(math.log2(len(np.unique(levels))))
    noise = random.poisson(levels * photons) / photons - levels
    noisy: Floats = image + (scale * noise).astype(np.float32)
    return noisy


def jpeg(image: Floats, quality: int) -> Floats:
    """Compress and decompress by Pillow, after rounding to 8 bits."""
    buffer = BytesIO()
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer), np.float32) / np.float32(255)
    return decoded.reshape(image.shape)


def resize(image: Floats, size: tuple[int, int], mode: Interpolation) -> Floats:
    """To (height, width) as PyTorch's `interpolate` does, without antialiasing."""
    values = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    options = {} if mode == "area" else {"align_corners": False}
    result = functional.interpolate(values, size=size, mode=mode, **options)[0]
    return np.ascontiguousarray(result.permute(1, 2, 0).numpy())
