"""Photographs on which exported networks are compared with PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images
from imdn_kd.image.reader import read_image

Photograph = npt.NDArray[np.uint8]
"""H x W x 3."""


def sample_photographs() -> list[Photograph]:
    """Photographs that come with scikit-image."""
    import skimage.data

    data: Any = skimage.data  # scikit-image is only partly typed
    return [data.coffee(), data.astronaut(), data.rocket()]


def read_photographs(folder: Path | str, most: int) -> list[Photograph]:
    """At most so many images of a folder, spread evenly over it.

    Raises:
        InputError: as `find_images` and `read_image`; `export.no-images`, there are none.
    """
    found = find_images(folder)
    if not found:
        raise InputError(f"{folder}: holds no images; name a folder with some", code="export.no-images")
    count = min(most, len(found))
    return [_colours(read_image(found[number * len(found) // count]).pixels) for number in range(count)]


def _colours(pixels: npt.NDArray[Any]) -> Photograph:
    """The colours of a picture, in 8 bits, without its transparency."""
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    colours = planes[..., :1] if planes.shape[2] < 3 else planes[..., :3]
    if colours.dtype == np.uint16:
        colours = colours >> 8
    return np.broadcast_to(colours, (*colours.shape[:2], 3)).astype(np.uint8)
