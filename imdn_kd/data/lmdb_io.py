"""Images in LMDB folders, laid out as BasicSR does it.

`NAME.lmdb` holds `data.mdb`, `lock.mdb` and `meta_info.txt`. The values are PNG files, their keys the names of the
images without suffix. A line of `meta_info.txt` is `key.png (height,width,channels) compression`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from imdn_kd.data.lmdb_environment import DATA, META, Environment, damaged, import_lmdb, lmdb_folder, open_to_read
from imdn_kd.data.lmdb_writer import LmdbWriter, check_key
from imdn_kd.errors import InputError
from imdn_kd.image.io import decode_image
from imdn_kd.image.rgb import Pixels, rgb_of

__all__ = ["LmdbImages", "LmdbWriter", "check_key", "common_keys"]

_META_LINE = re.compile(r"(?P<key>[^.]+)\.\S* \((?P<height>\d+), ?(?P<width>\d+), ?(?P<channels>\d+)\)( \d+)?")


class LmdbImages:
    """The images of an LMDB folder.

    May be pickled, and used by several threads and processes (forked or spawned): each process opens the file for
    itself when it first reads.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        keys: names of the images, without suffix, in the order of meta_info.txt.

    Raises:
        InputError: no such folder or not one of LMDB, a file of it missing or unreadable, or no package `lmdb`.
    """

    def __init__(self, path: Path | str) -> None:
        import_lmdb()
        self.path = lmdb_folder(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder; check the name")
        self._shapes = _read_meta(self.path / META)
        self.keys = tuple(self._shapes)
        if not (self.path / DATA).is_file():
            raise InputError(f"{self.path}: has no {DATA}, which holds the images; copy or make the folder again")
        self._opened: tuple[int, Environment] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def shape(self, key: str) -> tuple[int, int, int]:
        """Return height, width and channels as meta_info.txt has them; raises InputError where it has no such key."""
        if key not in self._shapes:
            raise InputError(f"{self.path / META}: has no line for {key!r}; check the name, or make the folder again")
        return self._shapes[key]

    def read(self, key: str) -> bytes:
        """Return the image file kept under `key`.

        Raises:
            InputError: no such key, or a damaged `data.mdb`.
        """
        lmdb = import_lmdb()
        # An environment must not be used in a process forked from the one that opened it.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_to_read(self.path)
        try:
            with self._opened[1].begin() as transaction:
                value: bytes | None = transaction.get(key.encode())
        except lmdb.BadValsizeError:  # a key that cannot exist
            value = None
        except lmdb.Error as error:
            raise damaged(self.path, error) from error
        if value is None:
            raise InputError(f"{self.path}: has no image {key!r}; check the name, or make the folder again")
        return value

    def pixels(self, key: str) -> Pixels:
        """Return an image as H x W x 3, RGB, 8 bit.

        Raises:
            InputError: as `read`, and if the value is not an image, has transparent pixels, or is not of the size that
                meta_info.txt says.
        """
        name = f"{self.path}/{key}"
        image = rgb_of(decode_image(self.read(key), name), name)
        stated = self.shape(key)
        if image.shape[:2] != stated[:2]:
            found, said = (f"{width}x{height}" for height, width in (image.shape[:2], stated[:2]))
            raise InputError(f"{name}: is {found} px, but {META} says {said}; make the folder again")
        return image


def common_keys(one: LmdbImages, other: LmdbImages) -> list[str]:
    """Return the keys of two LMDB folders that hold the same images, sorted, as BasicSR has them.

    Raises:
        InputError: one lacks an image of the other.
    """
    for full, lacking in ((one, other), (other, one)):
        missing = sorted(set(full.keys) - set(lacking.keys))
        if missing:
            many = f"{len(missing)} of the {len(full.keys)} images of {full.path}, {missing[0]!r} among them"
            raise InputError(f"{lacking.path}: lacks {many}; make both from the same images")
    return sorted(one.keys)


def _read_meta(path: Path) -> dict[str, tuple[int, int, int]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        advice = "without it the folder is not complete; copy or make it again"
        raise InputError(f"{path.parent}: has no {META}; {advice}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read ({reason}); copy or make the folder again") from error
    shapes: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _META_LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(f"{path}, line {number}: is not `name.png (height,width,channels) level`; correct it")
        if match["key"] in shapes:
            raise InputError(f"{path}, line {number}: lists {match['key']!r} again; remove one of the lines")
        shapes[match["key"]] = int(match["height"]), int(match["width"]), int(match["channels"])
    if not shapes:
        raise InputError(f"{path}: lists no images; make the folder again")
    return shapes
