"""Encoder: a Picture to a PNG, JPEG, WebP, TIFF or BMP file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, PngImagePlugin, TiffImagePlugin, TiffTags

from imdn_kd.errors import InputError
from imdn_kd.image.picture import DESCRIPTIVE_TAGS, EXIF_SUB_FOLDERS, Picture, exif_for, fitting_profile, sub_folder
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import one_line

# PNG allows more, but libpng, and so nearly every program, cannot read it.
_LARGEST_SIDE = {"JPEG": 65500, "WebP": 16383, "PNG": 10**6, "TIFF": 2**32 - 1, "BMP": 2**31 - 1}
_PNG_LEVEL = 4  # level 6 takes three times as long for 6 % less; level 1 saves a fifth of the time for 11 % more
_ROWS_AT_ONCE = 256
_EXIF_START = b"Exif\0\0"
_LARGEST_JPEG_EXIF = 65533
_LARGEST_PLAIN_TIFF = 2**32 - 2**25  # where tifffile turns to BigTIFF


def write_image(path: Path | str, picture: Picture, *, overwrite: bool = False, quality: int = 95) -> None:
    """Write `picture` in the format of the suffix of `path`; missing folders are created.

    | format | channels kept          | bits  | also kept           |
    |--------|------------------------|-------|---------------------|
    | PNG    | grey, RGB, with alpha  | 8, 16 | ICC, EXIF, dpi      |
    | TIFF   | grey, RGB, with alpha  | 8, 16 | ICC, EXIF, dpi      |
    | JPEG   | grey, RGB              | 8     | ICC, EXIF, dpi      |
    | WebP   | RGB, with alpha        | 8     | ICC, EXIF, dpi (in the EXIF) |
    | BMP    | grey, RGB              | 8     | dpi                 |

    Where a format has no alpha the picture is laid over white; where it has no 16 bits, v becomes
    round(v * 255 / 65535); where it has no grey, three equal channels are written (and a grey ICC profile is left out).
    EXIF that is too long for a JPEG is left out.

    Args:
        path: the file, written in full or not at all.
        picture: the picture.
        overwrite: replace an existing file.
        quality: 1 to 100 for JPEG (without colour subsampling) and WebP (100 means lossless); the others are lossless.

    Raises:
        InputError: `image.unknown-format`, `image.exists`, `image.is-folder`, `image.too-large`, `image.quality`,
            `image.no-memory`, or `image.cannot-write`.
    """
    target = Path(path)
    try:
        encode = _checked_encoder(target, picture, overwrite, quality)
        with atomic_path(target) as temporary:
            encode(temporary, picture, quality)
    except InputError as error:
        raise InputError(one_line(str(error)), code=error.code) from error
    except MemoryError as error:
        raise InputError(
            one_line(f"{path}: does not fit in memory; write a smaller picture"), code="image.no-memory"
        ) from error
    except Exception as error:  # encoders raise every kind for what their format cannot hold
        raise InputError(
            one_line(f"{path}: cannot write it ({error}); try .png or .tif"), code="image.cannot-write"
        ) from error


def _write_png(path: Path, picture: Picture, quality: int) -> None:
    data = imagecodecs.png_encode(picture.pixels, level=_PNG_LEVEL)
    chunks = BytesIO()
    if profile := fitting_profile(picture.icc_profile, picture.channels):
        PngImagePlugin.putchunk(chunks, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if picture.dpi is not None:
        PngImagePlugin.putchunk(chunks, b"pHYs", struct.pack(">IIB", *(round(dpi / 0.0254) for dpi in picture.dpi), 1))
    if exif := _exif_block(picture):
        PngImagePlugin.putchunk(chunks, b"eXIf", exif.removeprefix(_EXIF_START))
    after_header = 8 + 25  # signature and IHDR; the profile must come before anything else
    path.write_bytes(b"".join((data[:after_header], chunks.getvalue(), data[after_header:])))


def _write_tiff(path: Path, picture: Picture, quality: int) -> None:
    exif = exif_for(picture)
    plain = picture.pixels.nbytes < _LARGEST_PLAIN_TIFF
    folders = {int(tag): sub_folder(exif, tag) for tag in EXIF_SUB_FOLDERS if plain and tag in exif}
    places = [(tag - 1, "I", 1, 0, True) for tag in folders]
    tifffile.imwrite(
        path,
        picture.pixels,
        byteorder="<",
        bigtiff=not plain,
        photometric="rgb" if picture.channels > 2 else "minisblack",
        planarconfig="contig" if picture.channels > 1 else None,
        extrasamples=["unassalpha"] if picture.has_alpha else None,
        compression="zlib",
        predictor=True,
        rowsperstrip=64,
        resolution=picture.dpi,
        resolutionunit="inch" if picture.dpi else None,
        iccprofile=fitting_profile(picture.icc_profile, picture.channels),
        metadata=None,
        software=False,
        extratags=[*_tiff_tags(exif), *places],
    )
    _append_folders(path, folders)


def _tiff_tags(exif: Image.Exif) -> list[tuple[int, str, int, Any, bool]]:
    """Return the descriptive EXIF tags, for tifffile."""
    tags: list[tuple[int, str, int, Any, bool]] = []
    for tag in sorted(DESCRIPTIVE_TAGS & set(exif)):
        value = exif[tag]
        if isinstance(value, str):
            tags.append((tag, "s", 0, value.encode(), True))
        elif isinstance(value, bytes) and value:
            tags.append((tag, "B", len(value), value, True))
        elif isinstance(value, int) and 0 <= value < 2**16:
            tags.append((tag, "H", 1, value, True))
    return tags


def _append_folders(path: Path, folders: dict[int, dict[int, Any]]) -> None:
    """Append EXIF folders to a little-endian TIFF, and turn their placeholder tags into pointers.

    tifffile writes tags, but neither folders of tags nor the tags that point to them.
    """
    if not folders:
        return
    with tifffile.TiffFile(path) as written:
        entries = {tag: written.pages.first.tags[tag - 1].offset for tag in folders}
    with path.open("r+b") as file:
        for tag, folder in folders.items():
            place = (file.seek(0, os.SEEK_END) + 1) // 2 * 2
            block = TiffImagePlugin.ImageFileDirectory_v2(group=tag)
            for key, value in folder.items():
                block[key] = value
            file.seek(place)
            file.write(block.tobytes(place))
            file.seek(entries[tag])
            file.write(struct.pack("<HHII", tag, TiffTags.LONG, 1, place))


def _write_jpeg(path: Path, picture: Picture, quality: int) -> None:
    exif = _exif_block(picture)
    extra: dict[str, Any] = {"exif": exif} if exif and len(exif) <= _LARGEST_JPEG_EXIF else {}
    if picture.dpi is not None:
        extra["dpi"] = picture.dpi
    if profile := fitting_profile(picture.icc_profile, picture.channels):
        extra["icc_profile"] = profile
    with path.open("wb") as file:
        Image.fromarray(_eight_bits(picture.pixels, flatten=True)).save(
            file, "JPEG", quality=quality, subsampling=0, **extra
        )


def _write_webp(path: Path, picture: Picture, quality: int) -> None:
    pixels = _eight_bits(picture.pixels, flatten=False)
    if picture.channels < 3:
        grey = pixels if picture.channels == 1 else pixels[..., 0]
        pixels = np.stack([grey, grey, grey, *([pixels[..., 1]] if picture.has_alpha else [])], axis=-1)
    extra: dict[str, Any] = {}
    if exif := _exif_block(picture, with_dpi=True):
        extra["exif"] = exif
    if profile := fitting_profile(picture.icc_profile, pixels.shape[2]):
        extra["icc_profile"] = profile
    with path.open("wb") as file:
        Image.fromarray(pixels).save(
            file, "WEBP", lossless=quality == 100, exact=True, quality=quality if quality < 100 else 80, **extra
        )


def _write_bmp(path: Path, picture: Picture, quality: int) -> None:
    extra: dict[str, Any] = {"dpi": picture.dpi} if picture.dpi else {}
    with path.open("wb") as file:
        Image.fromarray(_eight_bits(picture.pixels, flatten=True)).save(file, "BMP", **extra)


_Encoder = Callable[[Path, Picture, int], None]
_ENCODERS: dict[str, tuple[str, _Encoder]] = {
    ".png": ("PNG", _write_png),
    ".jpg": ("JPEG", _write_jpeg),
    ".jpeg": ("JPEG", _write_jpeg),
    ".webp": ("WebP", _write_webp),
    ".tif": ("TIFF", _write_tiff),
    ".tiff": ("TIFF", _write_tiff),
    ".bmp": ("BMP", _write_bmp),
}
WRITABLE = frozenset(_ENCODERS)


def _checked_encoder(target: Path, picture: Picture, overwrite: bool, quality: int) -> _Encoder:
    suffix = target.suffix.lower()
    if suffix not in _ENCODERS:
        raise InputError(
            f"{target}: no format has the suffix {suffix!r}; use one of {', '.join(_ENCODERS)}",
            code="image.unknown-format",
        )
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name a file in it", code="image.is-folder")
    if not overwrite and os.path.lexists(target):
        raise InputError(f"{target}: exists already; choose another name or allow overwriting", code="image.exists")
    if not 1 <= quality <= 100:
        raise InputError(f"{target}: quality is {quality}; use 1 to 100", code="image.quality")
    name, encode = _ENCODERS[suffix]
    if max(picture.width, picture.height) > _LARGEST_SIDE[name]:
        size = f"{picture.width} x {picture.height}"
        raise InputError(
            f"{target}: {size} is more than the {_LARGEST_SIDE[name]} of {name}; use .png or .tif",
            code="image.too-large",
        )
    return encode


def _exif_block(picture: Picture, with_dpi: bool = False) -> bytes | None:
    exif = exif_for(picture)
    if picture.dpi is not None and (with_dpi or ExifTags.Base.XResolution in exif):
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = picture.dpi
        exif[ExifTags.Base.ResolutionUnit] = 2
    return exif.tobytes() if len(exif) else None


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
