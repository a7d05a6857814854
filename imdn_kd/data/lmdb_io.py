"""Images in LMDB folders, laid out as BasicSR does: reader and writer.

`NAME.lmdb` holds `data.mdb`, `lock.mdb` and `meta_info.txt`. The values are PNG files, their keys the names of the
images without suffix. A line of `meta_info.txt` is `key.png (height,width,channels) compression`.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from struct import unpack
from types import ModuleType
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

import numpy as np
from PIL import Image

from imdn_kd.errors import InputError
from imdn_kd.image.io import decode_image
from imdn_kd.image.rgb import RgbImage, rgb_of
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import read_text

DATA = "data.mdb"
META = "meta_info.txt"

Environment: TypeAlias = Any
"""Result of `lmdb.open`; the package has no types."""

# A file must not be opened twice in one process (newer releases of lmdb refuse it), so readers share it.
_opened: WeakValueDictionary[Path, Environment] = WeakValueDictionary()
_one_opens = threading.Lock()


def _forget_the_parent() -> None:
    """Close what the parent process has opened: it must not be used here, and blocks opening the file."""
    global _one_opens
    _one_opens = threading.Lock()
    for environment in list(_opened.values()):
        environment.close()
    _opened.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_forget_the_parent)


def import_lmdb() -> ModuleType:
    """Return the package `lmdb`; raises InputError where it is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise InputError(
            f"LMDB folders need the package lmdb; pip install lmdb, or {how_to_install('train')}",
            code="lmdb.not-installed",
        ) from error
    module: ModuleType = lmdb
    return module


def lmdb_folder(path: Path | str) -> Path:
    """Return `path` if its name ends in `.lmdb`, as BasicSR requires, else raise InputError."""
    path = Path(path)
    if path.suffix != ".lmdb":
        raise InputError(f"{path}: is not the name of an LMDB folder; give one that ends in .lmdb", code="lmdb.name")
    return path


def open_to_read(path: Path) -> Environment:
    """Return the environment of a folder, shared by all readers in this process.

    Raises:
        InputError: `lmdb.damaged`: absent, damaged or truncated, or opened by other code of this process.
    """
    lmdb = import_lmdb()
    with _one_opens:
        where = path.resolve()
        environment = _opened.get(where)
        if environment is None:
            try:
                # Read-only and without locks, like BasicSR: works on read-only disks, and for any number of processes.
                environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, create=False)
                _require_whole(path, environment)
            except (lmdb.Error, OSError) as error:
                raise damaged(path, error) from error
            _opened[where] = environment
    return environment


def _require_whole(path: Path, environment: Environment) -> None:
    """Refuse a truncated file: reading beyond its end would kill the process without a message."""
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    found = (path / DATA).stat().st_size
    if found < needed:
        environment.close()
        raise InputError(
            f"{path / DATA}: is cut short ({found} bytes of {needed}); copy or make the folder again",
            code="lmdb.damaged",
        )


def damaged(path: Path, error: Exception) -> InputError:
    """Return the InputError for an error of LMDB while reading."""
    reason = " ".join(str(error).split()).rstrip(".")
    advice = "close it there first" if "already open" in reason else "copy or make the folder again"
    return InputError(f"{path / DATA}: cannot be read ({reason}); {advice}", code="lmdb.damaged")


__all__ = ["LmdbImages", "LmdbWriter", "check_key", "common_keys"]

_META_LINE = re.compile(
    r"(?P<key>[^.]+)\.\S*[ \t]+\((?P<height>\d+), ?(?P<width>\d+), ?(?P<channels>\d+)\)([ \t]+\d+)?"
)


class LmdbImages:
    """A reader of the images of an LMDB folder.

    Can be pickled, and used by several threads and processes (forked or spawned): each process opens the file on its
    first read.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        keys: names of the images, without suffix, in the order of meta_info.txt.

    Raises:
        InputError: `lmdb.not-found`, `lmdb.name`, `lmdb.incomplete`, `lmdb.meta-info`, `lmdb.damaged`,
            `lmdb.not-installed`, or `lmdb.no-image`: meta_info.txt lists images that are not in the database.
    """

    def __init__(self, path: Path | str) -> None:
        import_lmdb()
        self.path = lmdb_folder(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path}: no such folder; check the name", code="lmdb.not-found")
        self._shapes = _read_meta(self.path / META)
        self.keys = tuple(self._shapes)
        if not (self.path / DATA).is_file():
            raise InputError(
                f"{self.path}: has no {DATA}, which holds the images; copy or make the folder again",
                code="lmdb.incomplete",
            )
        self._opened: tuple[int, Environment] | None = None
        self._require_images()

    def _require_images(self) -> None:
        with self._transaction(buffers=True) as transaction:  # looks keys up without reading images
            missing = [key for key in self.keys if _value(transaction, key) is None]
        # Whoever only makes the object may open the file otherwise.
        self._opened = None
        if missing:
            many = f"{len(missing)} of the {len(self.keys)} images of {META}, {missing[0]!r} among them"
            raise InputError(f"{self.path}: lacks {many}; make the folder again", code="lmdb.no-image")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    def shape(self, key: str) -> tuple[int, int, int]:
        """Return height, width and channels by meta_info.txt; InputError (`lmdb.no-image`) without such a key."""
        if key not in self._shapes:
            raise InputError(
                f"{self.path / META}: has no line for {key!r}; check the name, or make the folder again",
                code="lmdb.no-image",
            )
        return self._shapes[key]

    def read(self, key: str) -> bytes:
        """Return the encoded image stored under `key`.

        Raises:
            InputError: `lmdb.no-image` or `lmdb.damaged`.
        """
        with self._transaction() as transaction:
            value = _value(transaction, key)
        if value is None:
            raise InputError(
                f"{self.path}: has no image {key!r}; check the name, or make the folder again", code="lmdb.no-image"
            )
        return bytes(value)

    def pixels(self, key: str) -> RgbImage:
        """Return an image as H x W x 3, RGB, 8 bit.

        Raises:
            InputError: as `read` and `decode_image`, or `lmdb.size`: not the size in meta_info.txt.
        """
        name = f"{self.path}/{key}"
        image = rgb_of(decode_image(self.read(key), name), name)
        stated = self.shape(key)
        if image.shape[:2] != stated[:2]:
            found, said = (f"{width}x{height}" for height, width in (image.shape[:2], stated[:2]))
            raise InputError(f"{name}: is {found} px, but {META} says {said}; make the folder again", code="lmdb.size")
        return image

    @contextmanager
    def _transaction(self, *, buffers: bool = False) -> Iterator[Any]:
        lmdb = import_lmdb()
        # An environment must not be used in a process forked from the one that opened it.
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), open_to_read(self.path)
        try:
            with self._opened[1].begin(buffers=buffers) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise damaged(self.path, error) from error


def _value(transaction: Any, key: str) -> bytes | memoryview | None:  # noqa: ANN401 - the package has no types
    found: bytes | memoryview | None
    try:
        found = transaction.get(key.encode())
    except import_lmdb().BadValsizeError:  # a key that cannot exist
        found = None
    return found


def common_keys(one: LmdbImages, other: LmdbImages) -> list[str]:
    """Return the keys of two LMDB folders with the same images, sorted as in BasicSR.

    Raises:
        InputError: `lmdb.different-images`, one lacks an image of the other.
    """
    for full, lacking in ((one, other), (other, one)):
        missing = sorted(set(full.keys) - set(lacking.keys))
        if missing:
            many = f"{len(missing)} of the {len(full.keys)} images of {full.path}, {missing[0]!r} among them"
            raise InputError(
                f"{lacking.path}: lacks {many}; make both from the same images", code="lmdb.different-images"
            )
    return sorted(one.keys)


def _read_meta(path: Path) -> dict[str, tuple[int, int, int]]:
    try:
        lines = read_text(path).splitlines()
    except FileNotFoundError as error:
        advice = "without it the folder is not complete; copy or make it again"
        raise InputError(f"{path.parent}: has no {META}; {advice}", code="lmdb.incomplete") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot be read ({reason}); copy or make the folder again", code="lmdb.meta-info"
        ) from error
    shapes: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        match = _META_LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"{path}, line {number}: is not `name.png (height,width,channels) level`; correct it",
                code="lmdb.meta-info",
            )
        if match["key"] in shapes:
            raise InputError(
                f"{path}, line {number}: lists {match['key']!r} again; remove one of the lines", code="lmdb.meta-info"
            )
        shapes[match["key"]] = int(match["height"]), int(match["width"]), int(match["channels"])
    if not shapes:
        raise InputError(f"{path}: lists no images; make the folder again", code="lmdb.meta-info")
    return shapes


# BasicSR cuts a line of meta_info.txt at the first dot or space, and LMDB has room for 511 bytes.
_KEY = re.compile(r"[!-\-/-~]{1,511}")
_COMPRESSION = 1
_GROUP_BYTES = 2**26


class LmdbWriter:
    """A writer of images to an LMDB folder, new or resumed.

    Images are committed in groups, each of which is written in full or not at all. Leaving a `with` block commits,
    unless by an exception. Without `finish` there is no meta_info.txt, and the folder cannot be read.

    Args:
        path: the folder, whose name ends in `.lmdb`; created if absent.
        map_size: initial size of the map, bytes; grows by itself.

    Raises:
        InputError: `lmdb.name`, `lmdb.cannot-write` or `lmdb.not-installed`.
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
        """Whether an image of that name was written, now or in an earlier run."""
        return key in self._group or self._stored_size(key) is not None

    def put(self, key: str, pixels: RgbImage) -> None:
        """Add an image, H x W x 3, RGB, uint8; replaces one of the same name.

        Raises:
            InputError: `lmdb.key`, a name that BasicSR cannot read back, or `lmdb.cannot-write`.
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
        """Write everything added so far to disk; InputError (`lmdb.cannot-write`) if it is full."""
        try:
            while self._group and not self._write_group():
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
        except self._lmdb.Error as error:
            raise self._cannot_write(error) from error
        self._group, self._group_bytes = {}, 0

    def finish(self, keys: Iterable[str]) -> None:
        """Commit, and write meta_info.txt, without which the folder cannot be read.

        Args:
            keys: images to list, in this order.

        Raises:
            InputError: `lmdb.no-image`, a key that was never added, or `lmdb.cannot-write`.
        """
        self.commit()
        lines = []
        for key in keys:
            size = self._stored_size(key)
            if size is None:
                raise InputError(
                    f"{self.path}: has no image {key!r}, which is to be listed; put it first", code="lmdb.no-image"
                )
            lines.append(f"{key}.png ({size[0]},{size[1]},3) {_COMPRESSION}\n")
        with atomic_path(self.path / META) as temporary:
            temporary.write_text("".join(lines), encoding="ascii")

    def close(self) -> None:
        """Close the file, dropping what is not committed."""
        self._environment.close()

    def _write_group(self) -> bool:
        """Write the group, unless it exceeds the size of the map."""
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
        return InputError(
            f"{self.path}: cannot be written ({reason}); free some space, or choose another folder",
            code="lmdb.cannot-write",
        )


def check_key(key: str) -> None:
    """Raise InputError (`lmdb.key`) for a name that BasicSR cannot read back."""
    if not _KEY.fullmatch(key):
        advice = "rename it: 1 to 511 ASCII letters, digits and signs, without dots and spaces"
        raise InputError(f"an image in LMDB cannot be called {key!r}; {advice}", code="lmdb.key")
