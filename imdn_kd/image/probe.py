"""Sizes of image files from their headers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from imdn_kd.image.io import read_image
from imdn_kd.image.reader import open_image, quiet, require_file

_HEADER_TELLS = ("PNG", "JPEG", "WEBP", "BMP", "PPM")


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of an upright image, px; decodes it only if its header is not enough.

    Raises:
        InputError: as `imdn_kd.image.io.read_image`.
    """
    size = header_size(path)
    if size is not None:
        return size
    picture = read_image(path)
    return picture.height, picture.width


def header_size(path: Path) -> tuple[int, int] | None:
    """Return height and width of an upright image, px, without decoding it; None if its header is not enough."""
    try:
        with quiet, path.open("rb") as file, Image.open(file, formats=_HEADER_TELLS) as image:
            if image.format == "PNG" and not _ends_with_pixels(file, image.tile[0][2]):
                return None
            # Not image.getexif, which decodes a PNG to see what may come after its pixels.
            orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
            width, height = image.size
            return (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    except Exception:  # of any kind on damaged files; decoding reports what is wrong
        return None


def _ends_with_pixels(file: BinaryIO, first: int) -> bool:
    """Whether nothing comes after the pixels of a PNG, which begin at `first`: that could be an orientation."""
    position = first - 8
    while True:
        file.seek(position)
        length, kind = struct.unpack(">I4s", file.read(8))
        if kind != b"IDAT":
            return bool(kind == b"IEND")
        position += length + 12


def stated_size(path: Path) -> tuple[int, int] | None:
    """Return height and width of the first picture of any file, px, as its header states them; None if it does not.

    An orientation may exchange the two.
    """
    try:
        require_file(path)
        with quiet, path.open("rb") as file, open_image(file) as image:
            return image.height, image.width
    except Exception:  # of any kind on damaged files; decoding reports what is wrong
        return None
