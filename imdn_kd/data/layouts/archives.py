"""Members of zip and tar archives as readable files, without unpacking."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import BinaryIO, cast

from imdn_kd.errors import InputError
from imdn_kd.image.bounded import read_bounded
from imdn_kd.utils.text import one_line

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class ArchiveFile:
    """A member of an archive; an `ImageFile` whose stamp comes from the archive's index.

    Attributes:
        label: archive and member, `Set5.zip:Set5/baby.png`.
        stamp: size and checksum in a zip; sizes and modification times of member and archive in a tar.
        size: bytes.
        load: returns the content; safe to call from several threads.
    """

    label: str
    stamp: str
    size: int
    load: Callable[[], bytes]

    def read(self) -> bytes:
        """Return the content; InputError, with the label, where it cannot be read."""
        with errors_named(self.label):
            return self.load()


@contextmanager
def errors_named(label: str) -> Iterator[None]:
    """Turn every error of a file or an archive into an InputError that begins with `label`."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        if not isinstance(error, gzip.BadGzipFile):
            raise InputError(
                one_line(f"{label}: cannot be read ({error.strerror or error}); check it"), code="file.cannot-read"
            ) from error
        raise InputError(
            one_line(f"{label}: is damaged ({error}); get a fresh copy"), code="archive.damaged"
        ) from error
    except RuntimeError as error:  # encrypted, or packed in a way that Python does not know
        raise InputError(
            one_line(f"{label}: cannot be unpacked ({error}); unpack the archive yourself"),
            code="archive.cannot-unpack",
        ) from error
    except Exception as error:  # damage shows as errors of every kind
        raise InputError(
            one_line(f"{label}: is damaged or cut short ({error}); get a fresh copy"), code="archive.damaged"
        ) from error


def members(path: Path) -> list[tuple[str, ArchiveFile | None]]:
    """List the members of a zip or a tar, plain or .gz, except folders: names, and files or None (links and the like).

    A .gz, which can only be read from its start, is unpacked into an unnamed temporary file that lives as long as the
    members.

    Raises:
        InputError: `archive.unknown-format`, `archive.damaged`, `archive.cannot-unpack`, or `file.cannot-read`.
    """
    with errors_named(one_line(str(path))):
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK") or zipfile.is_zipfile(path):
            return list(_zip_members(path))
        if start.startswith(_GZIP) or tarfile.is_tarfile(path):
            return list(
                _tar_members(path, _unpacked(path) if start.startswith(_GZIP) else _SharedFile(path.open("rb")))
            )
    raise InputError(
        one_line(f"{path}: is neither a folder nor a zip or tar archive; unpack it first"),
        code="archive.unknown-format",
    )


def _zip_members(path: Path) -> Iterator[tuple[str, ArchiveFile]]:
    archive, lock = zipfile.ZipFile(path), Lock()
    for info in archive.infolist():
        if not info.is_dir():
            stamp = f"{info.file_size}-{info.CRC:08x}"
            name = _plain(info.filename)
            label = one_line(f"{path}:{name}")
            yield name, ArchiveFile(label, stamp, info.file_size, partial(_read_zipped, archive, lock, info, label))


def _read_zipped(archive: zipfile.ZipFile, lock: Lock, info: zipfile.ZipInfo, label: str) -> bytes:
    # A ZipFile lets threads read side by side, but counts its open members without a lock.
    with lock:
        member = archive.open(info)
    try:
        return read_bounded(cast(BinaryIO, member), info.file_size, label)
    finally:
        with lock:
            member.close()


class _SharedFile:
    """A file that several threads read parts of; closed with its last reference, like a ZipFile."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self._lock = Lock()

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self.file.seek(offset)
            data = self.file.read(size)
        if len(data) < size:
            raise EOFError("its end is missing")
        return data

    def __del__(self) -> None:
        self.file.close()


def _tar_members(path: Path, shared: _SharedFile) -> Iterator[tuple[str, ArchiveFile | None]]:
    status = path.stat()
    with tarfile.open(fileobj=shared.file, mode="r:") as archive:
        listed = archive.getmembers()
        # tarfile takes a damaged header for the end, which is a block of zeros.
        if any(shared.read(archive.offset, tarfile.BLOCKSIZE)):
            raise EOFError("its end is missing")
        for member in listed:
            content = archive.getmember(member.linkname) if member.islnk() else member
            name = _plain(member.name)
            if content.isreg():
                stamp = f"{content.size}-{content.mtime}-{status.st_size}-{status.st_mtime_ns}"
                label = one_line(f"{path}:{name}")
                load = partial(_read_part, shared, content.offset_data, content.size, label)
                yield name, ArchiveFile(label, stamp, content.size, load)
            elif not content.isdir():
                yield name, None


def _read_part(shared: _SharedFile, offset: int, size: int, label: str) -> bytes:
    return read_bounded(cast(BinaryIO, _Part(shared, offset, size)), size, label)


class _Part(io.RawIOBase):
    """A part of a shared file, with a position of its own."""

    def __init__(self, shared: _SharedFile, offset: int, size: int) -> None:
        self._shared, self._offset, self._size, self._position = shared, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        size = left if size is None or size < 0 else min(size, left)
        data = self._shared.read(self._offset + self._position, size)
        self._position += size
        return data


def _plain(name: str) -> str:
    """Return the name of a member without "./" and "/" at its start."""
    return "/".join(part for part in PurePosixPath(name).parts if part.strip("/"))


def _unpacked(path: Path) -> _SharedFile:
    """Unpack a .gz into a temporary file for random access."""
    spool = _SharedFile(tempfile.TemporaryFile())  # noqa: SIM115 - closes it
    with gzip.open(path) as packed:
        while block := packed.read(2**20):
            try:
                spool.file.write(block)
            except OSError as error:
                advice = "unpack it yourself, or let TMPDIR name a folder with more room"
                where = tempfile.gettempdir()
                raise InputError(
                    one_line(f"{path}: cannot unpack into {where} ({error.strerror}); {advice}"),
                    code="archive.cannot-unpack",
                ) from error
    spool.file.seek(0)
    return spool
