"""The HR or the LR images of a data set: files or the entries of an LMDB, all or those on a list."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from imdn_kd.data.lmdb_io import LmdbImages
from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images
from imdn_kd.image.probe import header_size, image_size
from imdn_kd.image.rgb import RgbImage, read_rgb
from imdn_kd.utils.text import read_text

MOST_LINES = 10
"""Of an error about many images."""


class Images(Protocol):
    """Images by number."""

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Name for messages."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width), px."""

    def cheap_size(self, index: int) -> tuple[int, int] | None:
        """(height, width), px; None where a header does not tell."""

    def read(self, index: int) -> RgbImage:
        """Pixels, H x W x 3."""


class Files:
    """Image files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return str(self._paths[index])

    def size(self, index: int) -> tuple[int, int]:
        """See `Images.size`."""
        return image_size(self._paths[index])

    def cheap_size(self, index: int) -> tuple[int, int] | None:
        """See `Images.cheap_size`."""
        return header_size(self._paths[index])

    def read(self, index: int) -> RgbImage:
        """See `Images.read`."""
        return read_rgb(self._paths[index])


class Entries:
    """Entries of an LMDB, by their keys."""

    def __init__(self, images: LmdbImages, keys: Sequence[str]) -> None:
        self._images = images
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def name(self, index: int) -> str:
        """See `Images.name`."""
        return f"{self._images.path}/{self._keys[index]}"

    def size(self, index: int) -> tuple[int, int]:
        """See `Images.size`."""
        return self._images.shape(self._keys[index])[:2]

    cheap_size = size

    def read(self, index: int) -> RgbImage:
        """See `Images.read`."""
        return self._images.pixels(self._keys[index])


def backend_of(options: Mapping[str, Any] | None) -> str:
    """`disk` or `lmdb`, from `io_backend`; raises InputError (`data.io-backend`)."""
    options = {"type": "disk"} if options is None else options
    kind = options.get("type")
    if kind not in ("disk", "lmdb"):
        raise InputError(
            f"io_backend: the type {kind!r} is not supported; write `type: disk` or `type: lmdb`",
            code="data.io-backend",
        )
    unused = sorted(set(options) - {"type"})
    if unused:
        raise InputError(f"io_backend: the option {unused[0]!r} is not used; leave it out", code="data.io-backend")
    return str(kind)


def names_in_folder(folder: Path) -> list[Path]:
    """The images of a folder, by name; raises InputError (`data.no-images`, `data.same-name`)."""
    originals = find_images(folder)
    if not originals:
        advice = "set `io_backend` to `type: lmdb`" if folder.suffix == ".lmdb" else "check the name"
        raise InputError(f"{folder}: has no images; {advice}", code="data.no-images")
    stem, count = Counter(path.stem for path in originals).most_common(1)[0]
    if count > 1:
        raise InputError(f"{folder}: has {count} images called {stem}; keep one of them", code="data.same-name")
    return [Path(path.name) for path in originals]


def names_in_list(folder: Path, list_file: Path) -> list[Path]:
    """The images that a file lists, in its order; raises InputError (`data.not-a-folder`, `data.image-list`)."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; check the name", code="data.not-a-folder")
    names: dict[Path, None] = {}
    for number, line in enumerate(_lines(list_file), 1):
        if not line.strip():
            continue
        listed = re.split("[ \t]", line.strip(), maxsplit=1)[0]
        # Windows separates folders by back-slashes.
        name = Path(listed if (folder / listed).is_file() else listed.replace("\\", "/"))
        if name in names:
            raise InputError(
                f"{list_file}, line {number}: lists {name} again; remove one of the lines", code="data.image-list"
            )
        if not (folder / name).is_file():
            raise InputError(
                f"{list_file}, line {number}: lists {name}, which is not in {folder}; correct the list",
                code="data.image-list",
            )
        names[name] = None
    if not names:
        raise InputError(f"{list_file}: lists no images; write the name of one on each line", code="data.image-list")
    return list(names)


def _lines(path: Path) -> list[str]:
    try:
        return read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot be read ({reason}); give a list of images as `meta_info_file`", code="data.image-list"
        ) from error
