"""Reading, writing and listing image files; every command uses these functions."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from imdn_kd.errors import InputError
from imdn_kd.image.picture import Picture
from imdn_kd.image.reader import MAX_PIXELS, decode_image, read_image
from imdn_kd.image.writer import WRITABLE, check_writable, write_image

__all__ = [
    "MAX_PIXELS",
    "READABLE",
    "WRITABLE",
    "Picture",
    "check_writable",
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


def find_images(
    folder: Path | str, recursive: bool = False, on_error: Callable[[Path, InputError], None] | None = None
) -> list[Path]:
    """Return the image files in a folder, sorted; reading tells which of them are links to nothing.

    Args:
        folder: the folder.
        recursive: include the folders inside, and those that links name, except links to a folder around them.
        on_error: called with a folder that cannot be listed and the error, instead of raising it.

    Raises:
        InputError: `image.not-a-folder` or `image.cannot-list`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; check the name", code="image.not-a-folder")

    def refuse(error: OSError) -> None:
        refusal = InputError(
            f"{error.filename}: cannot be listed ({error.strerror}); change its permissions", code="image.cannot-list"
        )
        if on_error is None:
            raise refusal from error
        on_error(Path(error.filename), refusal)

    images: list[Path] = []
    for name, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        parent = Path(name)
        images += [parent / file for file in files if is_image_name(file)]
        folders[:] = [inner for inner in folders if recursive and not _leads_back(parent / inner, folder)]
    return sorted(images)


def _leads_back(link: Path, top: Path) -> bool:
    """Whether what lies below `top` is a link to a folder around it, by the way from `top` or by its real place."""
    if not link.is_symlink():
        return False
    way = [link.parents[k].resolve() for k in range(len(link.relative_to(top).parts))]
    return link.resolve() in {folder for place in way for folder in (place, *place.parents)}
