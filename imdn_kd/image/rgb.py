"""RGB images as training and benchmarks use them, H x W x 3, 8 bit; and grey ones, H x W."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, read_image

RgbImage = npt.NDArray[np.uint8]
"""H x W x 3, RGB."""

GreyImage = npt.NDArray[np.uint8]
"""H x W."""


def read_rgb(path: Path) -> RgbImage:
    """Read an image as H x W x 3, RGB, 8 bit; see `rgb_of`.

    Raises:
        InputError: as `read_image` and `rgb_of`.
    """
    return rgb_of(read_image(path), str(path))


def read_grey(path: Path) -> GreyImage:
    """Read an image as H x W, 8 bit: grey as it is, of colours Y (BT.601, 16 to 235, rounded).

    Raises:
        InputError: as `read_image` and `rgb_of`.
    """
    picture = read_image(path)
    rgb = rgb_of(picture, str(path))
    if picture.channels < 3:
        return np.ascontiguousarray(rgb[..., 0])
    thousandths = rgb.astype(np.int64) @ np.array([65481, 128553, 24966])  # whole numbers, so that ties are exact
    grey: GreyImage = ((thousandths + 255_000 * 16 + 127_500) // 255_000).astype(np.uint8)
    return grey


def rgb_of(picture: Picture, name: str) -> RgbImage:
    """Return the pixels of a picture as H x W x 3, RGB, 8 bit; `name` is for messages.

    Grey is repeated three times, 16 bits are rounded to 8, an opaque alpha channel is left out, colour profiles are
    not applied.

    Raises:
        InputError: `image.transparent`: transparent pixels, whose colour is undefined.
    """
    pixels: npt.NDArray[Any] = picture.pixels if picture.pixels.ndim == 3 else picture.pixels[..., None]
    if picture.has_alpha:
        if (pixels[..., -1] != np.iinfo(pixels.dtype).max).any():
            raise InputError(
                f"{name}: has transparent pixels, whose colour is not defined; put it on a background",
                code="image.transparent",
            )
        pixels = pixels[..., :-1]
    # 257 is 65535 / 255.
    eight = pixels if pixels.dtype == np.uint8 else (pixels.astype(np.uint32) + 128) // 257
    eight = eight.astype(np.uint8, copy=False)
    return np.repeat(eight, 3, axis=2) if eight.shape[2] == 1 else np.ascontiguousarray(eight)
