"""Images and weights that lie beside the checkout, not in it; tests that need them are skipped where absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")


def read_rgb(path: Path) -> npt.NDArray[np.uint8]:
    """Pixels of an image file, H x W x 3."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def set5_pairs(scale: int) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """(original cropped to a multiple of the scale, published low-resolution image) of Set5."""
    pairs = []
    for path in sorted((SHARED / "benchmark" / "Set5" / "HR").iterdir()):
        hr = read_rgb(path)
        hr = hr[: hr.shape[0] // scale * scale, : hr.shape[1] // scale * scale]
        low = SHARED / "benchmark" / "Set5" / f"LRbicx{scale}" / f"{path.stem}x{scale}.bmp"
        pairs.append((hr, read_rgb(low)))
    return pairs
