"""Decoder: any image file to a Picture."""

from __future__ import annotations

import logging
import math
import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, ImageFile, TiffImagePlugin, UnidentifiedImageError

from imdn_kd.errors import InputError
from imdn_kd.image.colour import find_profile, read_avif_colours, read_png_colours, tiff_colours
from imdn_kd.image.picture import Picture, Pixels, exif_dpi, fitting_profile, portable_exif, sane_dpi
from imdn_kd.image.xmp import checked_packet, find_xmp
from imdn_kd.utils.text import one_line

MAX_PIXELS = 2**30
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "DIB", "GIF", "PPM", "JPEG2000", "AVIF")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ICC_TAG, _XMP_TAG, _WHITE_TAG, _PRIMARIES_TAG = 34675, 700, 318, 319
_OWN_COLOURS = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "I;16")  # the others are converted to sRGB
_EMPTY = "is empty; get a fresh copy"
_CUT_SHORT = "is damaged or cut short (parts of the picture are missing); get a fresh copy"
_WITHOUT_ALPHA = {"1": "L", "P": "RGB", "RGBX": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB"}
_WITH_ALPHA = {"P": "RGBA", "1": "LA", "L": "LA", "RGB": "RGBA", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}

for _name in ("PIL", "tifffile", "imagecodecs"):
    # Without a handler, logging prints these libraries' notes about damaged files to standard error.
    logging.getLogger(_name).addHandler(logging.NullHandler())


class RefusedError(InputError):
    """The reason why an image is refused, and what to do; the reader adds the name of the file."""


def read_image(path: Path | str) -> Picture:
    """Read an image file; the content decides the format, not the name.

    PNG, JPEG, WebP, TIFF, BMP, GIF, PNM, JPEG 2000 and, where Pillow has it, AVIF. Of animations and files of several
    pages the first picture is read; `imdn_kd.image.frames.read_frames` reads all. EXIF orientation is applied.

    - Grey stays grey; 1, 2 and 4 bits per sample are stretched to 8. Palettes become RGB. Transparency of any kind
      (alpha channel, palette entry, a transparent colour) becomes an alpha channel.
    - 16 bits per channel are kept from PNG (any kind), TIFF (grey, RGB, with alpha) and other grey files. 16-bit colour
      from other formats, and 16-bit CMYK, arrive with 8 bits.
    - CMYK and YCCK become sRGB through the profile in the file, or by Pillow's rule without one; Lab becomes sRGB.
    - 32-bit integers are taken as 16-bit samples if all lie in 0..65535, and floats if all lie in 0..1 (times 65535).

    Profile, other statements of colours, EXIF, XMP and resolution come along; comments, IPTC and the second packet of
    XMP that is too long for a JPEG do not. Colour profiles that do not fit the returned pixels and damaged metadata
    are dropped.

    Args:
        path: the file.

    Raises:
        InputError: `image.not-found`, `image.is-folder`, `image.not-a-file`, `image.cannot-open`,
            `image.no-permission`, `image.empty`, `image.unknown-format`, `image.damaged`, `image.truncated`,
            `image.too-large` (more than 2**30 pixels), `image.pixel-format` (samples without a sensible 16-bit form),
            or `image.no-memory`.
    """
    return read_page(path, 0)


def read_page(path: Path | str, page: int) -> Picture:
    """Read one page of a TIFF, counted from 0, as `read_image` does; other files have only a first one."""
    with naming_errors(path):
        require_file(path)
        with Path(path).open("rb") as file:
            return _decode(file, page)


def decode_image(data: bytes, name: str) -> Picture:
    """Decode the bytes of an image file, as `read_image` does; `name` is for messages."""
    with naming_errors(name):
        if not data:
            raise RefusedError(_EMPTY, code="image.empty")
        return _decode(BytesIO(data))


@contextmanager
def naming_errors(path: Path | str) -> Iterator[None]:
    """Turn every error into an InputError that begins with the name of the file."""
    try:
        yield
    except RefusedError as error:
        raise InputError(one_line(f"{path}: {error}"), code=error.code) from error
    except Image.DecompressionBombError as error:
        raise InputError(
            one_line(f"{path}: has more than {MAX_PIXELS} pixels; cut it into pieces first"), code="image.too-large"
        ) from error
    except UnidentifiedImageError as error:
        advice = "is not an image that can be read, or is damaged; convert it to PNG, JPEG or TIFF"
        raise InputError(one_line(f"{path}: {advice}"), code="image.unknown-format") from error
    except MemoryError as error:
        raise InputError(
            one_line(f"{path}: does not fit in memory; cut it into pieces first"), code="image.no-memory"
        ) from error
    except PermissionError as error:
        raise InputError(
            one_line(f"{path}: may not be read; change its permissions"), code="image.no-permission"
        ) from error
    except Exception as error:  # decoders raise every kind on damaged files
        # Pillow says with these what is wrong with a file; others tell where a decoder gave up.
        reason = f" ({error})" if isinstance(error, OSError | SyntaxError) else ""
        raise InputError(
            one_line(f"{path}: is damaged or cut short{reason}; get a fresh copy"), code="image.damaged"
        ) from error


def _decode(file: BinaryIO, page: int = 0) -> Picture:
    with quiet:
        return _read_deep_tiff(file, page) or _read_with_pillow(file, page)


def require_file(path: Path | str) -> None:
    """Refuse what is no regular file with content."""
    try:
        status = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise RefusedError("no such file; check the name", code="image.not-found") from error
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        raise RefusedError(f"cannot be opened ({error.strerror}); check the name", code="image.cannot-open") from error
    if stat.S_ISDIR(status.st_mode):
        raise RefusedError("is a folder; name an image in it", code="image.is-folder")
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError("is not a regular file; save the image to a file first", code="image.not-a-file")
    if status.st_size == 0:
        raise RefusedError(_EMPTY, code="image.empty")


class _Quiet:
    """A context in which warnings are silenced and Pillow's global size limit is ours, while any thread reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._readers:
                self._warnings = warnings.catch_warnings()
                self._warnings.__enter__()
                warnings.simplefilter("ignore")
                self._limit = Image.MAX_IMAGE_PIXELS
                # Pillow warns from the limit on and refuses from twice the limit on.
                Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
            self._readers += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._readers -= 1
            if not self._readers:
                Image.MAX_IMAGE_PIXELS = self._limit
                self._warnings.__exit__(None, None, None)


quiet = _Quiet()
_one_libtiff = threading.Lock()


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image of the formats that are read."""
    file.seek(0)
    Image.init()
    image = Image.open(file, formats=[name for name in _FORMATS if name in Image.OPEN])
    if 0 in image.size:
        raise RefusedError("has no pixels; get a fresh copy", code="image.damaged")
    return image


def _read_with_pillow(file: BinaryIO, page: int) -> Picture:
    with open_image(file) as image:
        if page:
            image.seek(page)
        # The tile list says how the file stores samples, and where; loading clears it.
        exact = image.format == "PNG" and _pillow_loses(str(image.tile[0][3]))
        if isinstance(image, TiffImagePlugin.TiffImageFile) and not _is_covered(image):
            raise RefusedError(_CUT_SHORT, code="image.truncated")
        with _deaf_to_libtiff() if image.format == "TIFF" else nullcontext():
            image.load()
        pixels = _decode_png(file) if exact else pixels_of(image)
        exif = exif_of(image)
        profile = fitting_profile(find_profile(image, file), _channels(pixels))
        return Picture(
            upright(pixels, exif.get(ExifTags.Base.Orientation)),
            profile,
            portable_exif(exif, from_tiff=image.format == "TIFF"),
            sane_dpi(*image.info["dpi"]) if "dpi" in image.info else exif_dpi(exif),
            find_xmp(image, file),
            _colours_of(image, file),
        )


def _colours_of(image: Image.Image, file: BinaryIO) -> dict[bytes, bytes]:
    """What the file says of its colours beside a profile."""
    if image.format == "PNG":
        return read_png_colours(file)
    if image.format == "AVIF" and "icc_profile" not in image.info:
        return read_avif_colours(file)
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in _OWN_COLOURS:
        return tiff_colours(image.tag_v2.get(_WHITE_TAG), image.tag_v2.get(_PRIMARIES_TAG))
    return {}


@contextmanager
def _deaf_to_libtiff() -> Iterator[None]:
    """Discard standard error: libtiff writes warnings directly to file descriptor 2.

    One thread at a time.
    """
    with _one_libtiff, _stderr_closed():
        yield


@contextmanager
def _stderr_closed() -> Iterator[None]:
    try:
        kept = os.dup(2)
    except OSError:  # closed, as in a daemon
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _is_covered(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether the strips or tiles reach the last row and column; Pillow leaves the rest black."""
    # Not image.size, which has its sides swapped where the orientation says so.
    sides = (image.tag_v2[ExifTags.Base.ImageWidth], image.tag_v2[ExifTags.Base.ImageLength])
    extents = [tile[1] for tile in image.tile if tile[1] is not None]
    return all(any(extent[axis + 2] >= sides[axis] for extent in extents) for axis in (0, 1))


def _pillow_loses(rawmode: str) -> bool:
    """Whether Pillow cuts these PNG samples to 8 bits, or misses their transparent colour after stretching."""
    return rawmode.endswith(";16B") or rawmode in ("1", "L;2", "L;4")


def _decode_png(file: BinaryIO) -> Pixels:
    file.seek(0)
    pixels: Pixels = imagecodecs.png_decode(file.read())
    return pixels


def exif_of(image: Image.Image) -> Image.Exif:
    """Return the EXIF of an image, empty if it is damaged."""
    try:
        return image.getexif()
    except Exception:  # as in portable_exif: damaged EXIF costs the EXIF, not the picture
        return Image.Exif()


def _read_deep_tiff(file: BinaryIO, number: int) -> Picture | None:
    """Read a TIFF of 16-bit grey or RGB samples; None for anything else, which Pillow reads."""
    if file.read(4) not in _TIFF_STARTS:
        return None
    file.seek(0)
    try:
        page = tifffile.TiffFile(file).pages[number]
        if not isinstance(page, tifffile.TiffPage) or not _is_deep(page):
            return None
    except Exception:  # Pillow may still read it, or say what is wrong
        return None
    if page.imagewidth * page.imagelength > MAX_PIXELS:
        raise Image.DecompressionBombError
    if len(page.dataoffsets) != math.prod(page.chunked) or 0 in page.databytecounts:
        raise RefusedError(_CUT_SHORT, code="image.truncated")
    pixels = _tiff_pixels(page)
    exif = Image.Exif()
    exif.endian, exif.bigtiff = page.parent.byteorder, page.parent.is_bigtiff
    exif.load_from_fp(file, page.offset)
    return Picture(
        upright(pixels, exif.get(ExifTags.Base.Orientation)),
        fitting_profile(exif.get(_ICC_TAG), _channels(pixels)),
        portable_exif(exif, from_tiff=True),
        exif_dpi(exif),
        checked_packet(exif.get(_XMP_TAG)),
        tiff_colours(exif.get(_WHITE_TAG), exif.get(_PRIMARIES_TAG)),
    )


def _is_deep(page: tifffile.TiffPage) -> bool:
    return bool(
        page.bitspersample == 16
        and page.sampleformat == tifffile.SAMPLEFORMAT.UINT
        and page.imagedepth == 1
        and (
            (page.photometric == tifffile.PHOTOMETRIC.RGB and page.samplesperpixel in (3, 4))
            or (
                page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
                and page.samplesperpixel in (1, 2)
            )
        )
    )


def _tiff_pixels(page: tifffile.TiffPage) -> Pixels:
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = pixels.astype(np.uint16, copy=False).reshape(page.imagelength, page.imagewidth, -1)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        pixels[..., 0] = 65535 - pixels[..., 0]
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        alpha = np.maximum(pixels[..., -1:], 1).astype(np.uint64)
        colour = (pixels[..., :-1].astype(np.uint64) * 65535 + alpha // 2) // alpha
        pixels[..., :-1] = np.minimum(colour, 65535)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def pixels_of(image: Image.Image) -> Pixels:
    """Return the pixels of a Pillow image as in a Picture: grey or RGB, with alpha if it has any transparency.

    The rules are those of `read_image`; EXIF orientation is left alone.

    Raises:
        InputError: `image.pixel-format`: 32-bit samples without a sensible 16-bit form, or an unknown mode.
    """
    mode = image.mode
    if mode.startswith("I;16"):
        return np.array(image).astype(np.uint16, copy=False)
    if mode in ("I", "F"):
        return _sixteen_bits(np.array(image))
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(image))
    mode = (_WITH_ALPHA if image.has_transparency_data else _WITHOUT_ALPHA).get(mode, mode)
    if mode not in ("L", "LA", "RGB", "RGBA"):
        raise RefusedError(
            f"holds pixels of kind {mode}, which cannot be used; convert it to RGB", code="image.pixel-format"
        )
    return np.array(image if mode == image.mode else image.convert(mode))


def _sixteen_bits(values: NDArray[Any]) -> Pixels:
    """Convert 32-bit samples to 16 bits where their range is clear."""
    top = 1 if values.dtype.kind == "f" else 65535
    # Written so that not-a-number fails it.
    if not (values.min() >= 0 and values.max() <= top):
        raise RefusedError(
            f"holds 32-bit samples beyond 0..{top}; convert it to 8 or 16 bits per channel", code="image.pixel-format"
        )
    stretched: Pixels = np.rint(values * np.float64(65535 / top)).astype(np.uint16)
    return stretched


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile[16:20] == b"CMYK":
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):
            converted = None
        if converted is not None:
            return converted
    return image.convert("RGB")


def _channels(pixels: Pixels) -> int:
    return 1 if pixels.ndim == 2 else int(pixels.shape[2])


def upright(pixels: NDArray[Any], orientation: object) -> Pixels:
    """Undo an EXIF orientation (1 to 8; anything else counts as upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
