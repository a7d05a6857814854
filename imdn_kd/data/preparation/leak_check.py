"""Leak check: finds training images that look like an image of a benchmark."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from imdn_kd.data.layouts.originals import find_originals
from imdn_kd.image.rgb import RgbImage, read_rgb

Bits = npt.NDArray[np.bool_]

_SIDE = 128  # px of the shorter side, at least, of what is hashed
_HASH_SIZE = 16  # the hash has the square of it bits
_CUT = 0.05  # of the width or height
_ALIKE = 64  # bits that may differ


class BenchmarkIndex:
    """An index of benchmark images by perceptual hash, to compare training images with.

    Images are compared by the signs of their 16 x 16 lowest frequencies (`imagehash.phash`), of which a quarter may
    differ. Of 256, copies of 43 photographs of Set5, Set14 and Kodak differed in at most 18 when resized by .5 to 2,
    brightened or darkened by 10 %, mirrored or saved as JPEG of quality 30, and in at most 50 when cut by up to 5 % at
    every border; the nearest of 806 other photographs differed in 82. (With 64 bits, or with difference or
    wavelet hashes, the nearest other photograph is about as near as a cropped copy.)

    To find cropped copies, a benchmark image is hashed with and without 5 % at each of its borders, and mirrored. Of
    those cut by 5 to 8 %, one in sixty was missed. Copies that are cropped more, rotated or flipped
    upside down are not found; nor are small crops.

    Args:
        folders: benchmarks; see `find_set`.

    Raises:
        InputError: `data.no-images`, or an image that cannot be read.

    Attributes:
        labels: names of the images, as `Set5/baby.png`.
        checksum: SHA-256 of all hashes.
    """

    def __init__(self, folders: Sequence[Path | str]) -> None:
        images = [image for folder in folders for image in _originals(Path(folder))]
        self.labels = tuple(label for label, _ in images)
        self._hashes = np.array([_hashes(read_rgb(path)) for _, path in images], dtype=np.bool_)
        self.checksum = hashlib.sha256(self._hashes.tobytes()).hexdigest()

    def match(self, pixels: RgbImage) -> str | None:
        """Return the label of the most similar benchmark image; None if no image is similar.

        Safe to call from several threads.

        Args:
            pixels: H x W x 3, RGB.
        """
        if not self.labels:
            return None
        distances = np.count_nonzero(self._hashes != _hash(_small(pixels)), axis=2).min(axis=1)
        nearest = int(distances.argmin())
        return self.labels[nearest] if distances[nearest] <= _ALIKE else None


def _originals(folder: Path) -> list[tuple[str, Path]]:
    layout, images = find_originals(folder)
    return [(f"{layout.title}/{path.name}", path) for path in images]


def _small(pixels: RgbImage) -> Image.Image:
    image = Image.fromarray(pixels)
    # Averaging by a whole factor is fast; the hash does the rest.
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
