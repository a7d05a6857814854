"""What files state of their colours other than by an ICC profile, in the form of PNG chunks, and profiles made of it.

PNG specification, third edition, section 11.3.2: https://www.w3.org/TR/png-3/#11addnlcolinfo
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_Curve = Callable[[NDArray[np.float64]], NDArray[np.float64]]
_Profile = bytes | None

_LENGTHS = {b"cICP": 4, b"mDCV": 24, b"cLLI": 8, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}
"""Chunks that state colours, and their lengths in bytes."""
_SRGB = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
"""Chromaticities x, y of white, red, green and blue."""
_C, _DCI = (0.310, 0.316), (0.314, 0.351)
_PRIMARIES = {
    1: _SRGB,
    4: (*_C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*_C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (*_DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (0.3127, 0.3290, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Rec. ITU-T H.273, table 2: https://www.itu.int/rec/T-REC-H.273"""
_UNSPECIFIED = 2
_CURVE_POINTS = 4096
_DATE = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # the same picture gives the same file at any time
_LONGEST_PROFILE = 2**26
_D50 = (0.3457, 0.3585)


def _power(exponent: float) -> _Curve:
    return lambda signal: signal**exponent


def _toe(slope: float, end: float, offset: float, exponent: float) -> _Curve:
    """Linear up to the signal `end`, then a power."""
    return lambda signal: np.where(signal < end, signal / slope, ((signal + offset) / (1 + offset)) ** exponent)


_BT709, _SRGB_CURVE = _toe(4.5, 0.0812428, 0.0992968, 1 / 0.45), _toe(12.92, 0.04045, 0.055, 2.4)
_CURVES: dict[int, _Curve] = {
    **dict.fromkeys((1, 6, 14, 15), _BT709),
    4: _power(2.2),
    5: _power(2.8),
    7: _toe(4, 0.0912, 0.1115, 1 / 0.45),
    8: _power(1),
    13: _SRGB_CURVE,
}
"""From the signal to light, both from 0 to 1: H.273, table 3. Those of HDR have no white that a profile could state."""


def read_png_colours(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the chunks of a PNG that state its colours, less those of a wrong length."""
    found: dict[bytes, bytes] = {}
    file.seek(8)
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"IDAT", b"IEND"):
            break
        if _LENGTHS.get(kind) == length:
            found.setdefault(kind, file.read(length))
            length = 0
        file.seek(length + 4, 1)
    if found.get(b"gAMA") == bytes(4):
        del found[b"gAMA"]
    return found


def read_avif_colours(file: BinaryIO) -> dict[bytes, bytes]:
    """Return the code points of an AVIF as a `cICP` chunk, unless they are those of sRGB or unspecified."""
    file.seek(0)
    _, marker, rest = file.read(2**16).partition(b"colrnclx")
    primaries, transfer = struct.unpack(">HH", rest[:4]) if marker and len(rest) >= 4 else (_UNSPECIFIED,) * 2
    if _UNSPECIFIED in (primaries, transfer) or max(primaries, transfer) > 255 or (primaries, transfer) == (1, 13):
        return {}
    return {b"cICP": bytes((primaries, transfer, 0, 1))}  # of RGB in full range, as decoders return it


def tiff_colours(white: Any, primaries: Any) -> dict[bytes, bytes]:  # noqa: ANN401 - whatever a tag holds
    """Return WhitePoint and PrimaryChromaticities of a TIFF as a `cHRM` chunk, unless they are those of sRGB."""
    try:
        values = [float(value) for value in (*white, *primaries)]
        if len(values) != 8 or np.allclose(values, _SRGB, atol=1e-3):
            return {}
        return {b"cHRM": struct.pack(">8I", *(round(1e5 * value) for value in values))}
    except (TypeError, ValueError, ArithmeticError, struct.error):
        return {}


def states_srgb(chunks: Mapping[bytes, bytes]) -> bool:
    """Whether the colours are those that a file without any statement is taken to have: sRGB, or within 1 % of it."""
    if b"cICP" in chunks:
        return chunks[b"cICP"][:2] == bytes((1, 13))
    if b"sRGB" in chunks:
        return True
    return abs(_gamma(chunks, default=0.45455) - 0.45455) < 0.005 and np.allclose(_ends(chunks), _SRGB, atol=1e-3)


def find_profile(image: Image.Image, file: BinaryIO) -> object:
    """Return the ICC profile of an image, also where Pillow does not look for it: in BMP and JPEG 2000."""
    if image.format in ("BMP", "JPEG2000"):
        file.seek(0)
        head = file.read(2**16)
        if image.format == "BMP":
            # A header of version 5; where its profile lies is counted from there.
            start, length = struct.unpack("<II", head[126:134]) if head[70:74] == b"DEBM" else (0, 0)
            file.seek(14 + start)
            return file.read(min(length, _LONGEST_PROFILE))
        _, _, rest = head.partition(b"colr\x02")
        file.seek(len(head) - len(rest) + 2)
        return file.read(min(int.from_bytes(rest[2:6], "big"), _LONGEST_PROFILE))
    return image.info.get("icc_profile")


def make_profile(chunks: Mapping[bytes, bytes], channels: int) -> _Profile:
    """Make the ICC profile for what chunks state; None if there is none: PQ and HLG, or impossible values.

    Args:
        chunks: the first of `cICP`, `sRGB`, `gAMA` with `cHRM` counts.
        channels: of the pixels, as in a `Picture`; it decides between a grey and an RGB profile.
    """
    ends: tuple[float, ...] | None
    curve: _Curve | None
    if b"cICP" in chunks:
        primaries, transfer, _, full_range = chunks[b"cICP"]
        ends, curve = _PRIMARIES.get(primaries), _CURVES.get(transfer)
        if ends is None or curve is None or not full_range:
            return None
    elif b"sRGB" in chunks:
        ends, curve = _SRGB, _SRGB_CURVE
    else:
        ends = _ends(chunks)
        curve = _power(1 / _gamma(chunks, default=1)) if b"gAMA" in chunks else _SRGB_CURVE
    table = np.rint(65535 * curve(np.linspace(0, 1, _CURVE_POINTS)).clip(0, 1)).astype(np.uint16)
    try:
        if channels < 3:
            made = imagecodecs.cms_profile("gray", whitepoint=_D50, transferfunction=table)
        else:
            made = imagecodecs.cms_profile("rgb", whitepoint=ends[:2], primaries=ends[2:], transferfunction=table)
    except Exception:  # of any kind, for chromaticities that are none
        return None
    return bytes(made[:24] + _DATE + made[36:])


def _gamma(chunks: Mapping[bytes, bytes], default: float) -> float:
    return struct.unpack(">I", chunks[b"gAMA"])[0] / 1e5 if b"gAMA" in chunks else default


def _ends(chunks: Mapping[bytes, bytes]) -> tuple[float, ...]:
    if b"cHRM" not in chunks:
        return _SRGB
    return tuple(value / 1e5 for value in struct.unpack(">8I", chunks[b"cHRM"]))
