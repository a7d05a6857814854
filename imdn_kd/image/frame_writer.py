"""Encoder of files of several pictures: animated PNG and WebP, and TIFFs of several pages.

The frames are whole canvases, encoded by themselves and put together here, so that one at a time is in memory.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import tifffile
from PIL import PngImagePlugin

from imdn_kd.errors import InputError
from imdn_kd.image.frames import Frame, Frames
from imdn_kd.image.metadata import Metadata
from imdn_kd.image.picture import Picture
from imdn_kd.image.writer import (
    LARGEST_PLAIN_TIFF,
    Folders,
    append_folders,
    checked_format,
    encode_png,
    encode_webp,
    naming_errors,
    write_page,
)
from imdn_kd.utils.files import atomic_path

_LONGEST_WEBP_MS = 2**24 - 1
_NO_BLENDING = 2


def holds_all(path: Path | str, frames: Frames) -> bool:
    """Whether a file with the suffix of `path` holds all these pictures: animations in PNG and WebP, any in TIFF."""
    suffix = Path(path).suffix.lower()
    if frames.count == 1 or suffix in (".tif", ".tiff"):
        return frames.kind != "views" or frames.count == 1
    return frames.kind == "animation" and suffix in (".png", ".webp")


def further_pictures(frames: Frames) -> tuple[str, ...]:
    """What is left out where only the first picture of a file is used, in words."""
    names = {"animation": "frames", "pages": "pages", "views": "pictures"}
    return (f"{frames.count - 1} further {names[frames.kind]}",) if frames.count > 1 else ()


def write_frames(path: Path | str, frames: Frames, *, overwrite: bool = False, quality: int = 95) -> tuple[str, ...]:
    """Write all `frames` to one file; see `holds_all`. Metadata are those of the first, of a TIFF those of each page.

    Args:
        path: as in `write_image`.
        frames: of an animation all have the same size.
        overwrite: as in `write_image`.
        quality: as in `write_image`.

    Returns:
        What the file does not hold, in words.

    Raises:
        InputError: as `write_image`, and what is raised while the pictures are taken.
    """
    target, left_out = Path(path), dict[str, None]()
    try:
        with atomic_path(target, overwrite=overwrite) as temporary, ExitStack() as stack:
            encoder: _Encoder | None = None
            for frame in frames.pictures:  # whose errors are not of the writing
                with naming_errors(path):
                    kind = checked_format(target, frame.picture, overwrite, quality)
                    metadata = kind.metadata_of(frame.picture, frames.count)
                    left_out.update(dict.fromkeys(metadata.left_out))
                    if encoder is None:
                        encoder = _ENCODERS[kind.name](temporary, frames, frame.picture, quality)
                        stack.callback(encoder.close)
                    encoder.add(frame, metadata)
            with naming_errors(path):
                if encoder is not None:
                    encoder.finish()
                    left_out.update(dict.fromkeys(encoder.left_out))
    except InputError as error:
        raise InputError(str(error), code="image.exists" if error.code == "file.exists" else error.code) from error
    return tuple(left_out)


class _Encoder(ABC):
    """Puts encoded frames together in a file."""

    def __init__(self, path: Path, frames: Frames, first: Picture, quality: int) -> None:
        self.path, self.frames, self.first, self.quality = path, frames, first, quality
        self.left_out: set[str] = set()
        self.open()

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def add(self, frame: Frame, metadata: Metadata) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


class _ChunkEncoder(_Encoder):
    """For files that are rows of chunks."""

    def open(self) -> None:
        self.file = self.path.open("wb")

    def close(self) -> None:
        self.file.close()


class _PngEncoder(_ChunkEncoder):
    """Animated PNG: https://www.w3.org/TR/png-3/#apng-frame-based-animation."""

    def open(self) -> None:
        super().open()
        self._number = 0

    def add(self, frame: Frame, metadata: Metadata) -> None:
        """Write a still PNG with `acTL` and `fcTL` before its pixels, then only the pixels of the others."""
        started = self.file.tell() > 0
        plain = Picture(frame.picture.pixels)
        data = encode_png(plain, Metadata()) if started else encode_png(frame.picture, metadata)
        before = True
        if not started:
            self.file.write(data[:8])
        for kind, content in _png_chunks(data):
            if kind == b"IDAT":
                if before and not started:
                    shown = self.frames.count - (frame.duration is None)
                    self._put(b"acTL", struct.pack(">II", shown, self.frames.loop))
                if before and frame.duration is not None:
                    self._control(plain, frame.duration)
                before = False
                if started:
                    self._put(b"fdAT", self._next() + content)
                else:
                    self._put(kind, content)
            elif not started and kind != b"IEND":
                self._put(kind, content)

    def finish(self) -> None:
        self._put(b"IEND", b"")
        self.close()

    def _control(self, picture: Picture, duration: float) -> None:
        delay = Fraction(min(duration / 1000, 65535)).limit_denominator(1000)
        delay = Fraction(round(delay)) if delay.numerator > 65535 else delay
        size = struct.pack(">4I", picture.width, picture.height, 0, 0)
        # Neither disposed of nor blended.
        self._put(b"fcTL", self._next() + size + struct.pack(">HHBB", delay.numerator, delay.denominator, 0, 0))

    def _next(self) -> bytes:
        self._number += 1
        return struct.pack(">I", self._number - 1)

    def _put(self, kind: bytes, content: bytes) -> None:
        PngImagePlugin.putchunk(self.file, kind, content)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += length + 12


class _WebpEncoder(_ChunkEncoder):
    """Animated WebP: https://developers.google.com/speed/webp/docs/riff_container."""

    def open(self) -> None:
        super().open()
        self._size = b"".join((side - 1).to_bytes(3, "little") for side in (self.first.width, self.first.height))
        self._last: dict[bytes, bytes] = {}

    def add(self, frame: Frame, metadata: Metadata) -> None:
        """Write the pixels of a still WebP as a frame; before the first one, what the file begins with."""
        if frame.duration is None:
            self.left_out.add("the picture for programs without animations")
            return
        started = self.file.tell() > 0
        chunks = dict(_webp_chunks(encode_webp(frame.picture, Metadata() if started else metadata, self.quality)))
        if not started:
            self._last = {kind: chunks[kind] for kind in (b"EXIF", b"XMP ") if kind in chunks}
            flags = 0x02 | 0x10 | 0x20 * (b"ICCP" in chunks) | 0x08 * (b"EXIF" in chunks) | 0x04 * (b"XMP " in chunks)
            self.file.write(b"RIFF\0\0\0\0WEBP")
            self._put(b"VP8X", struct.pack("<I", flags) + self._size)
            if b"ICCP" in chunks:
                self._put(b"ICCP", chunks[b"ICCP"])
            self._put(b"ANIM", struct.pack("<IH", 0, min(self.frames.loop, 65535)))
        duration = min(round(frame.duration), _LONGEST_WEBP_MS).to_bytes(3, "little")
        pixels = b"".join(_riff(kind, chunks[kind]) for kind in (b"ALPH", b"VP8 ", b"VP8L") if kind in chunks)
        self._put(b"ANMF", bytes(6) + self._size + duration + bytes((_NO_BLENDING,)) + pixels)

    def finish(self) -> None:
        for kind, content in self._last.items():
            self._put(kind, content)
        length = self.file.tell() - 8
        self.file.seek(4)
        self.file.write(struct.pack("<I", length))
        self.close()

    def _put(self, kind: bytes, content: bytes) -> None:
        self.file.write(_riff(kind, content))


def _riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place < len(data):
        kind, length = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + length]
        place += 8 + length + length % 2


class _TiffEncoder(_Encoder):
    """A TIFF of several pages."""

    def open(self) -> None:
        large = self.frames.count * self.first.pixels.nbytes >= LARGEST_PLAIN_TIFF
        self._writer = tifffile.TiffWriter(self.path, byteorder="<", bigtiff=large)
        self._folders: list[Folders] = []

    def add(self, frame: Frame, metadata: Metadata) -> None:
        if frame.duration is not None:
            self.left_out.add("durations")
        self._folders.append(write_page(self._writer, frame.picture, metadata))

    def finish(self) -> None:
        self.close()
        append_folders(self.path, self._folders)

    def close(self) -> None:
        self._writer.close()


_ENCODERS: dict[str, type[_Encoder]] = {"PNG": _PngEncoder, "WebP": _WebpEncoder, "TIFF": _TiffEncoder}
