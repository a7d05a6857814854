"""Encoder: a Picture to a PNG, JPEG, WebP, TIFF or BMP file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags

from imdn_kd.errors import InputError
from imdn_kd.image.metadata import Holds, Metadata, metadata_for
from imdn_kd.image.picture import DESCRIPTIVE_TAGS, EXIF_SUB_FOLDERS, Picture, sub_folder
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import one_line

_PNG_LEVEL = 4  # level 6 takes three times as long for 6 % less; level 1 saves a fifth of the time for 11 % more
_ROWS_AT_ONCE = 256
_EXIF_START = b"Exif\0\0"
_XMP_TAG = 700
_TiffTag = tuple[int, str, int, Any, bool]
Folders = dict[int, dict[int, Any]]
"""EXIF folders by their tags."""
LARGEST_PLAIN_TIFF = 2**32 - 2**25  # where tifffile turns to BigTIFF


def write_image(path: Path | str, picture: Picture, *, overwrite: bool = False, quality: int = 95) -> tuple[str, ...]:
    """Write `picture` in the format of the suffix of `path`; missing folders are created.

    | format | channels kept          | bits  | also kept                         |
    |--------|------------------------|-------|-----------------------------------|
    | PNG    | grey, RGB, with alpha  | 8, 16 | ICC, `colours`, EXIF, XMP, dpi    |
    | TIFF   | grey, RGB, with alpha  | 8, 16 | ICC, EXIF, XMP, dpi               |
    | JPEG   | grey, RGB              | 8     | ICC, EXIF, XMP, dpi               |
    | WebP   | RGB, with alpha        | 8     | ICC, EXIF, XMP, dpi (in the EXIF) |
    | BMP    | grey, RGB              | 8     | dpi                               |

    Where a format has no alpha the picture is laid over white; where it has no 16 bits, v becomes
    round(v * 255 / 65535); where it has no grey, three equal channels are written (and a grey ICC profile is left out).
    Where a format does not hold `colours` an ICC profile is made of them, except of PQ and HLG. EXIF and XMP that are
    too long for a JPEG (64 KiB each) are left out, and EXIF in a TIFF of 4 GiB.

    Args:
        path: the file, written in full or not at all.
        picture: the picture.
        overwrite: replace an existing file; otherwise one stays even if it appears during the writing.
        quality: 1 to 100 for JPEG (without colour subsampling) and WebP (100 means lossless); the others are lossless.

    Returns:
        What of the metadata the file does not hold, in words: `XMP`, `EXIF`, `colour profile`, ...

    Raises:
        InputError: `image.unknown-format`, `image.exists`, `image.is-folder`, `image.too-large`, `image.quality`,
            `image.no-memory`, or `image.cannot-write`.
    """
    target = Path(path)
    with naming_errors(path):
        kind = checked_format(target, picture, overwrite, quality)
        metadata = kind.metadata_of(picture)
        with atomic_path(target, overwrite=overwrite) as temporary:
            kind.encode(temporary, picture, metadata, quality)
        return metadata.left_out


@contextmanager
def naming_errors(path: Path | str) -> Iterator[None]:
    """Turn every error of an encoder into an InputError that begins with the name of the file."""
    try:
        yield
    except InputError as error:
        code = "image.exists" if error.code == "file.exists" else error.code
        raise InputError(one_line(str(error)), code=code) from error
    except MemoryError as error:
        raise InputError(
            one_line(f"{path}: does not fit in memory; write a smaller picture"), code="image.no-memory"
        ) from error
    except Exception as error:  # encoders raise every kind for what their format cannot hold
        raise InputError(
            one_line(f"{path}: cannot write it ({error}); try .png or .tif"), code="image.cannot-write"
        ) from error


def _write_png(path: Path, picture: Picture, metadata: Metadata, quality: int) -> None:
    path.write_bytes(encode_png(picture, metadata))


def encode_png(picture: Picture, metadata: Metadata) -> bytes:
    """Return a PNG file."""
    data = imagecodecs.png_encode(picture.pixels, level=_PNG_LEVEL)
    chunks = BytesIO()
    for name, value in metadata.colours.items():
        PngImagePlugin.putchunk(chunks, name, value)
    if metadata.profile:
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0", zlib.compress(metadata.profile))
    if picture.dpi is not None:
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in picture.dpi), 1))
    if len(metadata.exif):
        PngImagePlugin.putchunk(chunks, b"eXIf", metadata.exif.tobytes().removeprefix(_EXIF_START))
    if metadata.xmp:
        PngImagePlugin.putchunk(chunks, b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0", metadata.xmp)
    after_header = 8 + 25  # signature and IHDR; what states colours must come before anything else
    return b"".join((data[:after_header], chunks.getvalue(), data[after_header:]))


def _write_tiff(path: Path, picture: Picture, metadata: Metadata, quality: int) -> None:
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=picture.pixels.nbytes >= LARGEST_PLAIN_TIFF) as file:
        folders = write_page(file, picture, metadata)
    append_folders(path, [folders])


def write_page(file: tifffile.TiffWriter, picture: Picture, metadata: Metadata) -> Folders:
    """Write a page, and return the EXIF folders that `append_folders` has to add when all pages are written."""
    exif = metadata.exif
    folders = {int(tag): sub_folder(exif, tag) for tag in EXIF_SUB_FOLDERS if tag in exif}
    places: list[_TiffTag] = [(tag - 1, "I", 1, 0, True) for tag in folders]
    packet: list[_TiffTag] = [(_XMP_TAG, "B", len(metadata.xmp), metadata.xmp, True)] if metadata.xmp else []
    file.write(
        picture.pixels,
        photometric="rgb" if picture.channels > 2 else "minisblack",
        planarconfig="contig" if picture.channels > 1 else None,
        extrasamples=["unassalpha"] if picture.has_alpha else None,
        compression="zlib",
        predictor=True,
        rowsperstrip=64,
        resolution=picture.dpi,
        resolutionunit="inch" if picture.dpi else None,
        iccprofile=metadata.profile,
        metadata=None,
        software=False,
        extratags=[*_tiff_tags(exif), *packet, *places],
    )
    return folders


def _tiff_tags(exif: Image.Exif) -> list[_TiffTag]:
    """Return the descriptive EXIF tags, for tifffile."""
    tags: list[_TiffTag] = []
    for tag in sorted(DESCRIPTIVE_TAGS & set(exif)):
        value = exif[tag]
        if isinstance(value, str):
            tags.append((tag, "s", 0, value.encode(), True))
        elif isinstance(value, bytes) and value:
            tags.append((tag, "B", len(value), value, True))
        elif isinstance(value, int) and 0 <= value < 2**16:
            tags.append((tag, "H", 1, value, True))
    return tags


def append_folders(path: Path, pages: list[Folders]) -> None:
    """Append the EXIF folders of the pages of a little-endian TIFF, and turn their placeholder tags into pointers.

    tifffile writes tags, but neither folders of tags nor the tags that point to them.
    """
    if not any(pages):
        return
    with tifffile.TiffFile(path) as written:
        entries = [
            (page.aspage().tags[tag - 1].offset, tag, folder)
            for page, folders in zip(written.pages, pages, strict=True)
            for tag, folder in folders.items()
        ]
    with path.open("r+b") as file:
        for entry, tag, folder in entries:
            place = (file.seek(0, os.SEEK_END) + 1) // 2 * 2
            block = TiffImagePlugin.ImageFileDirectory_v2(group=tag)
            for key, value in folder.items():
                block[key] = value
            file.seek(place)
            file.write(block.tobytes(place))
            file.seek(entry)
            file.write(struct.pack("<HHII", tag, TiffTags.LONG, 1, place))


def _write_jpeg(path: Path, picture: Picture, metadata: Metadata, quality: int) -> None:
    extra = _for_pillow(metadata)
    if picture.dpi is not None:
        extra["dpi"] = picture.dpi
    with path.open("wb") as file:
        Image.fromarray(_eight_bits(picture.pixels, flatten=True)).save(
            file, "JPEG", quality=quality, subsampling=0, **extra
        )


def _write_webp(path: Path, picture: Picture, metadata: Metadata, quality: int) -> None:
    path.write_bytes(encode_webp(picture, metadata, quality))


def encode_webp(picture: Picture, metadata: Metadata, quality: int) -> bytes:
    """Return a WebP file; `quality` as in `write_image`."""
    pixels = _eight_bits(picture.pixels, flatten=False)
    if picture.channels < 3:
        grey = pixels if picture.channels == 1 else pixels[..., 0]
        pixels = np.stack([grey, grey, grey, *([pixels[..., 1]] if picture.has_alpha else [])], axis=-1)
    file, lossless = BytesIO(), quality == 100
    settings = {"lossless": lossless, "quality": 80 if lossless else quality, "exact": True}
    Image.fromarray(pixels).save(file, "WEBP", **settings, **_for_pillow(metadata))
    return file.getvalue()


def _for_pillow(metadata: Metadata) -> dict[str, Any]:
    """Return the metadata as the arguments of Pillow's `save`."""
    exif = metadata.exif.tobytes() if len(metadata.exif) else None
    found = {"exif": exif, "icc_profile": metadata.profile, "xmp": metadata.xmp}
    return {name: value for name, value in found.items() if value}


def _write_bmp(path: Path, picture: Picture, metadata: Metadata, quality: int) -> None:
    extra: dict[str, Any] = {"dpi": picture.dpi} if picture.dpi else {}
    with path.open("wb") as file:
        Image.fromarray(_eight_bits(picture.pixels, flatten=True)).save(file, "BMP", **extra)


_Encoder = Callable[[Path, Picture, Metadata, int], None]


@dataclass(frozen=True)
class Format:
    """A format of image files: its name, encoder, largest side in px, and what it holds."""

    name: str
    encode: _Encoder
    largest_side: int
    holds: Holds
    grey: bool = True
    alpha: bool = True

    def metadata_of(self, picture: Picture, count: int = 1) -> Metadata:
        """Return the metadata of `picture` as a file of `count` such pictures holds them."""
        channels = picture.channels if self.alpha or not picture.has_alpha else picture.channels - 1
        channels = channels if self.grey else max(channels, 3 + picture.has_alpha)
        large_tiff = self.name == "TIFF" and count * picture.pixels.nbytes >= LARGEST_PLAIN_TIFF
        holds = replace(self.holds, exif=0) if large_tiff else self.holds
        return metadata_for(picture, holds, channels, dpi_in_exif=self.name == "WebP")


# PNG allows larger sides, but libpng, and so nearly every program, cannot read them.
_PNG = Format("PNG", _write_png, 10**6, Holds(colours=True))
_JPEG = Format("JPEG", _write_jpeg, 65500, Holds(exif=65533, xmp=65504), alpha=False)
_WEBP = Format("WebP", _write_webp, 16383, Holds(), grey=False)
_TIFF = Format("TIFF", _write_tiff, 2**32 - 1, Holds())
_BMP = Format("BMP", _write_bmp, 2**31 - 1, Holds(profile=False, exif=0, xmp=0), alpha=False)
_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _BMP,
}
WRITABLE = frozenset(_FORMATS)


def check_writable(path: Path | str, width: int, height: int) -> None:
    """Check, before the work that makes it, that the format of the suffix can hold a picture of this size in px.

    Raises:
        InputError: `image.unknown-format` or `image.too-large`.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise InputError(
            f"{path}: no format has the suffix {suffix!r}; use one of {', '.join(_FORMATS)}",
            code="image.unknown-format",
        )
    kind, longest = _FORMATS[suffix], max(width, height)
    if longest > kind.largest_side:
        others = [key for key in (".png", ".tif") if longest <= _FORMATS[key].largest_side]
        advice = f"use {' or '.join(others)}" if others else "ask for a smaller size"
        raise InputError(
            f"{path}: {width} x {height} px is more than the {kind.largest_side} of {kind.name}; {advice}",
            code="image.too-large",
        )


def checked_format(target: Path, picture: Picture, overwrite: bool, quality: int) -> Format:
    """Return the format of a file, or refuse what cannot be written there; see `write_image`."""
    check_writable(target, picture.width, picture.height)
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it", code="image.is-folder")
    if not overwrite and os.path.lexists(target):
        raise InputError(f"{target}: exists already; choose another name or allow overwriting", code="image.exists")
    if not 1 <= quality <= 100:
        raise InputError(f"{target}: quality is {quality}; use 1 to 100", code="image.quality")
    return _FORMATS[target.suffix.lower()]


def _eight_bits(pixels: NDArray[Any], flatten: bool) -> NDArray[np.uint8]:
    """Return pixels as uint8, laid over white if `flatten`; by bands of rows, so as to need little memory on top."""
    over_white = flatten and pixels.ndim == 3 and pixels.shape[2] in (2, 4)
    if pixels.dtype == np.uint8 and not over_white:
        return np.ascontiguousarray(pixels)
    colours = pixels.shape[2] - 1 if over_white else 0
    shape = (*pixels.shape[:2], colours)[: 2 if colours == 1 else 3] if over_white else pixels.shape
    result = np.empty(shape, np.uint8)
    for row in range(0, shape[0], _ROWS_AT_ONCE):
        band = pixels[row : row + _ROWS_AT_ONCE]
        if over_white:
            band = _over_white(band).reshape(-1, *shape[1:])
        # 65535 / 255 is 257, an odd number: there are no ties to break.
        result[row : row + _ROWS_AT_ONCE] = band if band.dtype == np.uint8 else (band.astype(np.uint32) + 128) // 257
    return result


def _over_white(pixels: NDArray[Any]) -> NDArray[Any]:
    top = np.uint32(np.iinfo(pixels.dtype).max)
    colour, alpha = pixels[..., :-1].astype(np.uint32), pixels[..., -1:].astype(np.uint32)
    # At most top * top + top // 2, which 32 bits hold.
    mixed: NDArray[Any] = (colour * alpha + top * (top - alpha) + top // 2) // top
    return mixed.astype(pixels.dtype)
