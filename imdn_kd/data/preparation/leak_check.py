"""Keeping benchmark images out of training data: finding images that look like one of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imdn_kd.data.folder_names import HR_FOLDERS
from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images
from imdn_kd.image.rgb import RgbImage, read_rgb

Bits = npt.NDArray[np.bool_]

_SIDE = 128  # px of the shorter side, at least, of what is hashed
_HASH_SIZE = 16  # the hash has the square of it bits
_CUT = 0.05  # of the width or height
_ALIKE = 64  # bits that may differ


class BenchmarkIndex:
    """The images of some benchmarks, to be compared with training images.

    Images are compared by the signs of their 16 x 16 lowest frequencies (`imagehash.phash`), of which a quarter may
    differ: of 256, copies of 43 photographs of Set5, Set14 and Kodak differed in at most 18 when resized by .5 to 2,
    brightened or darkened by 10 %, mirrored or saved as JPEG of quality 30, and in at most 50 when cut by up to 5 % at
    every border; the nearest of 806 other photographs differed in 82. (With 64 bits, or by differences of neighbours
    or wavelets, the nearest stranger is about as near as a copy that was cut.)

    To be found when cut, a benchmark image is hashed with and without 5 % at each of its borders, and mirrored. Of
    those cut by 5 to 8 %, one in sixty was missed. Cut more than that, turned by 90 degrees or put upside down, an
    image is not found; nor is a small piece of one.

    Args:
        folders: of the benchmarks; their `HR` if there is one inside, else the folder itself.

    Raises:
        InputError: a folder has no images, or one of these cannot be read.

    Attributes:
        labels: what `match` calls the images: `Set5/baby.png`.
        checksum: differs where the images differ.
    """

    def __init__(self, folders: Sequence[Path | str]) -> None:
        paths = [path for folder in folders for path in _originals(Path(folder))]
        self.labels = tuple(_label(path) for path in paths)
        self._hashes = np.array([_hashes(read_rgb(path)) for path in paths], dtype=np.bool_)
        self.checksum = hashlib.sha256(self._hashes.tobytes()).hexdigest()

    def match(self, pixels: RgbImage) -> str | None:
        """Return the label of the benchmark image that an image looks like most; None if it is like none of them.

        Safe to call from several threads.

        Args:
            pixels: H x W x 3, RGB.
        """
        if not self.labels:
            return None
        distances = np.count_nonzero(self._hashes != _hash(_small(pixels)), axis=2).min(axis=1)
        nearest = int(distances.argmin())
        return self.labels[nearest] if distances[nearest] <= _ALIKE else None


def _originals(folder: Path) -> list[Path]:
    inside = next((folder / name for name in HR_FOLDERS if (folder / name).is_dir()), folder)
    images = find_images(inside)
    if not images:
        raise InputError(
            f"{inside}: has no images to compare with; name the folder of a benchmark, such as Set14",
            code="data.no-images",
        )
    return images


def _label(path: Path) -> str:
    folder = path.absolute().parent
    return f"{(folder.parent if folder.name in HR_FOLDERS else folder).name}/{path.name}"


def _small(pixels: RgbImage) -> Image.Image:
    image = Image.fromarray(pixels)
    # Whole factors are averaged fast; the rest is left to the hash.
    return image.reduce(max(1, min(image.size) // _SIDE)).convert("L")


def _hashes(pixels: RgbImage) -> list[Bits]:
    small = _small(pixels)
    width, height = small.size
    cuts = itertools.product((0, round(_CUT * width)), (0, round(_CUT * height)), repeat=2)
    pieces = [small.crop((left, top, width - right, height - bottom)) for left, top, right, bottom in cuts]
    return [_hash(side) for piece in pieces for side in (piece, piece.transpose(Image.Transpose.FLIP_LEFT_RIGHT))]


def _hash(image: Image.Image) -> Bits:
    import imagehash

    bits: Bits = imagehash.phash(image, _HASH_SIZE).hash.ravel()
    return bits
