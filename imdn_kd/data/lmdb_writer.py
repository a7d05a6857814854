"""Writing images to LMDB folders that BasicSR can read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from struct import unpack

import numpy as np
from PIL import Image

from imdn_kd.data.lmdb_environment import META, import_lmdb, lmdb_folder
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import Pixels
from imdn_kd.utils.files import atomic_path

# BasicSR cuts a line of meta_info.txt at the first dot or space, and LMDB has room for 511 bytes.
_KEY = re.compile(r"[!-\-/-~]{1,511}")
_COMPRESSION = 1
_GROUP_BYTES = 2**26


class LmdbWriter:
    """Writes images to a new LMDB folder, or goes on with one that it wrote before.

    Images are written in groups, each of which is on the disk in full or not at all, whatever happens. Leaving a `with`
    block commits, unless by an exception. Without `finish` there is no meta_info.txt, and nobody reads the folder.

    Args:
        path: the folder, whose name ends in `.lmdb`; made if absent.
        map_size: bytes that the images are expected to take; grows by itself.

    Raises:
        InputError: another name, a folder that cannot be written to, or no package `lmdb`.
    """

    def __init__(self, path: Path | str, map_size: int = 2**28) -> None:
        self._lmdb = import_lmdb()
        self.path = lmdb_folder(path)
        self._group: dict[str, bytes] = {}
        self._group_bytes = 0
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._environment = self._lmdb.open(str(self.path), map_size=map_size)
        except (OSError, self._lmdb.Error) as error:
            raise self._cannot_write(error) from error

    def __enter__(self) -> LmdbWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.close()

    def has(self, key: str) -> bool:
        """Whether an image of that name was put, now or before the folder was opened."""
        return key in self._group or self._stored_size(key) is not None

    def put(self, key: str, pixels: Pixels) -> None:
        """Add an image, H x W x 3, RGB, in place of any other of that name.

        Raises:
            InputError: a name that BasicSR would not find again, or a full disk.
        """
        check_key(key)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(f"pixels must be H x W x 3 and uint8, not {pixels.shape} and {pixels.dtype}")
        file = BytesIO()
        Image.fromarray(pixels).save(file, "PNG", compress_level=_COMPRESSION)
        self._group[key] = file.getvalue()
        self._group_bytes += len(self._group[key])
        if self._group_bytes >= _GROUP_BYTES:
            self.commit()

    def commit(self) -> None:
        """Bring to the disk what was put so far; raises InputError if it is full."""
        try:
            while self._group and not self._write_group():
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        except self._lmdb.Error as error:
            raise self._cannot_write(error) from error
        self._group, self._group_bytes = {}, 0

    def finish(self, keys: Iterable[str]) -> None:
        """Commit, and write meta_info.txt, which makes the folder one to be read.

        Args:
            keys: the images that it lists, in this order.

        Raises:
            InputError: a key that was never put, or a full disk.
        """
        self.commit()
        lines = []
        for key in keys:
            size = self._stored_size(key)
            if size is None:
                raise InputError(f"{self.path}: has no image {key!r}, which is to be listed; put it first")
            lines.append(f"{key}.png ({size[0]},{size[1]},3) {_COMPRESSION}\n")
        with atomic_path(self.path / META) as temporary:
            temporary.write_text("".join(lines), encoding="ascii")

    def close(self) -> None:
        """Close the file; what is not committed is dropped."""
        self._environment.close()

    def _write_group(self) -> bool:
        """Write the group, unless it would exceed the size of the map."""
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in self._group.items():
                    transaction.put(key.encode(), value)
        except self._lmdb.MapFullError:
            return False
        return True

    def _stored_size(self, key: str) -> tuple[int, int] | None:
        """Height and width of a committed image; None if there is none."""
        with self._environment.begin(buffers=True) as transaction:
            value = transaction.get(key.encode()) if _KEY.fullmatch(key) else None
            # After its signature a PNG file begins with the chunk IHDR, and this with width and height.
            return None if value is None else unpack(">8x8xII", value[:24])[::-1]

    def _cannot_write(self, error: Exception) -> InputError:
        reason = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        return InputError(f"{self.path}: cannot be written ({reason}); free some space, or choose another folder")


def check_key(key: str) -> None:
    """Raise InputError if BasicSR would not find an image of that name again."""
    if not _KEY.fullmatch(key):
        advice = "rename it: 1 to 511 ASCII letters, digits and signs, without dots and spaces"
        raise InputError(f"an image in LMDB cannot be called {key!r}; {advice}")
