"""Small data sets of smooth random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize

NAMES = ("baby", "bird")
SIZE = (37, 41)


def picture(size: tuple[int, int], seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), dtype=np.uint8)
    return imresize(coarse, size=size)


def make_set(
    folder: Path,
    *,
    hr: str = "HR",
    lr: str | None = None,
    lr_suffix: str = "x2.png",
    scale: int = 2,
    size: tuple[int, int] = SIZE,
) -> Path:
    """Write two originals, and their LR images if `lr` names a folder for them."""
    for seed, name in enumerate(NAMES):
        pixels = picture(size, seed)
        write_image(folder / hr / f"{name}.png", Picture(pixels))
        if lr:
            cropped = pixels[: size[0] // scale * scale, : size[1] // scale * scale]
            write_image(folder / lr / f"{name}{lr_suffix}", Picture(imresize(cropped, 1 / scale)))
    return folder
