"""What a page shows of a result beside bicubic interpolation, at a bounded size."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from imdn_kd.evaluation.crops import most_different
from imdn_kd.image.io import Picture

SIDE = 1600
"""Of a preview, px at most."""

CROP = 96
"""Side of a crop in px of the result."""

_CROPS = 3
_MARGIN = 4  # px of the picture around a crop: the bicubic kernel reaches 2
_BACKGROUND = 208  # of transparent pixels, a grey
_RGB = ImageCms.createProfile("sRGB")

Pixels = npt.NDArray[Any]


@dataclass(frozen=True)
class Crop:
    """A place, enlarged by bicubic interpolation and by the model; `left` and `top` in px of the result."""

    left: int
    top: int
    bicubic: npt.NDArray[np.uint8]
    model: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Preview:
    """The whole picture in both ways, of one size, and crops of where they differ most; sRGB."""

    bicubic: Image.Image
    model: Image.Image
    crops: list[Crop]


def preview(picture: Picture, large: Picture) -> Preview:
    """Show a result beside bicubic interpolation.

    Args:
        picture: what was enlarged.
        large: the result.
    """
    rows, columns = (max(1, math.ceil(side / SIDE)) for side in large.pixels.shape[:2])
    factor = max(rows, columns)
    after = _shown(large, _shrunk(large.pixels, factor))
    # Of a picture that hardly grows, no more than the preview needs.
    before = _shown(picture, _shrunk(picture.pixels, max(1, factor * picture.height // large.height)))
    before = before.resize(after.size, Image.Resampling.BICUBIC)
    arrays = [np.asarray(image) for image in (before, after)]
    places = most_different(arrays, side=max(1, CROP // factor), count=_CROPS)
    crops = [_crop(picture, large, left * factor, top * factor) for top, left, _, _ in places]
    return Preview(before, after, crops)


def _shrunk(pixels: Pixels, factor: int) -> Pixels:
    """Means of squares of `factor` px; what is left at the right and the bottom is cut."""
    if factor == 1:
        return pixels
    height, width = pixels.shape[:2]
    down, across = min(factor, height), min(factor, width)
    columns = width // across
    planes = pixels.reshape(height, width, -1)
    rows = [
        planes[top : top + down, : columns * across].reshape(down, columns, across, -1).mean((0, 2))
        for top in range(0, height - down + 1, down)
    ]
    means: Pixels = np.rint(np.stack(rows)).astype(pixels.dtype)
    return means.reshape(len(rows), columns, *pixels.shape[2:])


def _crop(picture: Picture, large: Picture, left: int, top: int) -> Crop:
    height, width = large.pixels.shape[:2]
    bottom, right = min(top + CROP, height), min(left + CROP, width)
    model = _shown(large, large.pixels[top:bottom, left:right])
    # The same place in px of the picture, of which a little more is cut out.
    down, across = picture.height / height, picture.width / width
    first_row, first_column = max(0, int(top * down) - _MARGIN), max(0, int(left * across) - _MARGIN)
    part = picture.pixels[
        first_row : math.ceil(bottom * down) + _MARGIN, first_column : math.ceil(right * across) + _MARGIN
    ]
    edges = [(x * across - first_column, y * down - first_row) for x, y in ((left, top), (right, bottom))]
    box = [min(edge, side) for pair in edges for edge, side in zip(pair, part.shape[1::-1], strict=True)]
    bicubic = _shown(picture, part).resize(model.size, Image.Resampling.BICUBIC, box=tuple(box))
    return Crop(left, top, np.asarray(bicubic), np.asarray(model))


def _shown(picture: Picture, pixels: Pixels) -> Image.Image:
    """Pixels of a picture as a screen shows them: RGB, 8 bit, sRGB, on a grey background."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colours = image.convert(image.mode.removesuffix("A"))
    if picture.icc_profile is not None:
        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(picture.icc_profile))
            converted = ImageCms.profileToProfile(colours, profile, _RGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):  # a profile that cannot be used is shown as sRGB
            converted = None
        colours = converted or colours
    shown = colours.convert("RGB")
    if alpha is not None:
        shown = Image.composite(shown, Image.new("RGB", shown.size, (_BACKGROUND,) * 3), alpha)
    return shown
