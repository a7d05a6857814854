"""Reading image files whole, but no more than a picture of their size can need.

A compressed archive of 1 MB may hold a file of 1 GB; the header of an image says how much of it can be pixels.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO, cast

from imdn_kd.errors import InputError
from imdn_kd.image.reader import MAX_PIXELS, open_image, quiet
from imdn_kd.utils.text import one_line

ALWAYS_READ = 2**26
"""Bytes that any image file may have: metadata, small pictures, headers that say nothing."""
_LARGEST_PIXEL = 8  # bytes: four samples of 16 bits
_HEAD = 2**16
_WHOLE_AT_OPENING = (b"RIFF", b"ftyp")  # WebP and AVIF, which Pillow reads whole to open them


def read_bounded(file: BinaryIO, size: int, label: str) -> bytes:
    """Return the content of an image file.

    Args:
        file: seekable, at its start.
        size: of the file, bytes.
        label: of the file, for messages.

    Raises:
        InputError: `image.too-long`: more bytes than its pixels uncompressed, and `ALWAYS_READ`.
    """
    if size > ALWAYS_READ:
        allowed = ALWAYS_READ + _LARGEST_PIXEL * _pixels(file)
        if size > allowed:
            raise InputError(
                one_line(
                    f"{label}: has {size} bytes, and its picture needs no more than {allowed}; get a fresh copy, or "
                    "save the picture again"
                ),
                code="image.too-long",
            )
        file.seek(0)
    return file.read(size)


def _pixels(file: BinaryIO) -> int:
    """Pixels by the header; 0 where it does not say, or says more than is ever decoded."""
    head = file.read(_HEAD)
    try:
        if head[:4] == _WHOLE_AT_OPENING[0]:
            width, height = _webp_size(head)
        elif head[4:8] == _WHOLE_AT_OPENING[1]:
            width, height = struct.unpack_from(">II", head, head.index(b"ispe") + 8)
        else:
            with quiet, open_image(cast(BinaryIO, _Limited(file))) as image:
                width, height = image.size
    except Exception:  # of any kind on damaged files
        return 0
    return width * height if width * height <= MAX_PIXELS else 0


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height: https://developers.google.com/speed/webp/docs/riff_container."""
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


class _Limited(io.RawIOBase):
    """A file of which only `ALWAYS_READ` bytes may be read, wherever they lie."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, ALWAYS_READ

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0 or size > self._left:
            raise ValueError("a header that is longer than headers are")
        self._left -= size
        return self._file.read(size)
