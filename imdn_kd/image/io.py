"""Image files in and out: the one way through which every command reads and writes pictures."""

from __future__ import annotations

from pathlib import Path

from imdn_kd.errors import InputError
from imdn_kd.image.picture import Picture
from imdn_kd.image.reader import MAX_PIXELS, decode_image, read_image
from imdn_kd.image.writer import WRITABLE, write_image

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "Picture",
    "decode_image",
    "find_images",
    "is_image_name",
    "read_image",
    "write_image",
]

READABLE = WRITABLE | {".jpe", ".jfif", ".gif", ".pbm", ".pgm", ".ppm", ".pnm", ".jp2", ".avif"}


def is_image_name(path: Path | str) -> bool:
    """Whether a walk through folders should take the file for an image: by its suffix, hidden files never."""
    path = Path(path)
    return path.suffix.lower() in READABLE and not path.name.startswith(".")


def find_images(folder: Path | str, recursive: bool = False) -> list[Path]:
    """Return the image files in `folder` by their names, sorted.

    Args:
        folder: where to look.
        recursive: look into the folders inside as well.

    Raises:
        InputError: no such folder, or it cannot be listed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; check the name", code="image.not-a-folder")
    try:
        entries = list(folder.rglob("*") if recursive else folder.iterdir())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); change its permissions", code="image.cannot-list"
        ) from error
    return sorted(entry for entry in entries if is_image_name(entry) and entry.is_file())
