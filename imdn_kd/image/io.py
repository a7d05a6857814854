"""Reading, writing and listing image files; every command uses these functions."""

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
    """Whether a file counts as an image when folders are listed: by its suffix, and hidden files never."""
    path = Path(path)
    return path.suffix.lower() in READABLE and not path.name.startswith(".")


def find_images(folder: Path | str, recursive: bool = False) -> list[Path]:
    """Return the image files in a folder, sorted.

    Args:
        folder: the folder.
        recursive: include the folders inside.

    Raises:
        InputError: `image.not-a-folder` or `image.cannot-list`.
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
