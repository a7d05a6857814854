"""Pictures: pixels with the metadata that an output file must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

Pixels = NDArray[np.uint8] | NDArray[np.uint16]

_ICC_SPACES = {1: b"GRAY", 2: b"GRAY", 3: b"RGB ", 4: b"RGB "}
_MAX_DPI = 65535.0  # what a JPEG header can hold

# A TIFF has these beside tags that describe its strips and samples, which must not be copied to another file.
DESCRIPTIVE_TAGS = frozenset(
    {
        *(ExifTags.Base.ImageDescription, ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software),
        *(ExifTags.Base.DateTime, ExifTags.Base.Artist, ExifTags.Base.HostComputer, ExifTags.Base.Copyright),
        *(ExifTags.Base.Rating, ExifTags.Base.RatingPercent, ExifTags.Base.XPTitle, ExifTags.Base.XPComment),
        *(ExifTags.Base.XPAuthor, ExifTags.Base.XPKeywords, ExifTags.Base.XPSubject),
    }
)
_LAYOUT = re.compile(
    r"ImageJ=|shape=\(|Aperio |state\.|scanimage\.SI|SI\.|SIMPLE  =|\[[^\]\n]+\][,\r\n]"
    r"|<\?xml|<[A-Za-z].*>\Z|\{\s*\".*\}\Z",
    re.DOTALL,
)
_PLACES = frozenset({0x9214, 0xA214})  # SubjectArea and SubjectLocation, in px of the former picture
EXIF_SUB_FOLDERS = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)


@dataclass(frozen=True, eq=False)
class Picture:
    r"""An upright picture: pixels and metadata.

    Attributes:
        pixels: uint8 or uint16 in the full range of the type; H x W (grey), H x W x 2 (grey, alpha), H x W x 3 (RGB)
            or H x W x 4 (RGB, alpha); alpha is not premultiplied; H and W are at least 1.
        icc_profile: colour profile of the pixels, a grey one for grey and an RGB one for RGB; None means sRGB, unless
            `colours` says otherwise.
        exif: a block as in a JPEG file (`Exif\0\0`, then a small TIFF), without an orientation.
        dpi: pixels per inch, horizontal and vertical.
        xmp: an XMP packet.
        colours: what the file stated of its colours beside a profile, as PNG chunks: `cICP`, `gAMA`, `cHRM`, ...
    """

    pixels: Pixels
    icc_profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    xmp: bytes | None = None
    colours: Mapping[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.pixels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"pixels must be uint8 or uint16, not {self.pixels.dtype}")
        shape = self.pixels.shape
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (2, 3, 4)) or 0 in shape:
            raise ValueError(f"pixels must be H x W, or H x W x 2, 3 or 4, and not empty; got {shape}")

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return int(self.pixels.shape[1])

    @property
    def channels(self) -> int:
        """1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha."""
        return 1 if self.pixels.ndim == 2 else int(self.pixels.shape[2])

    @property
    def has_alpha(self) -> bool:
        """Whether the last channel is alpha."""
        return self.channels in (2, 4)


def fitting_profile(profile: object, channels: int) -> bytes | None:
    """Return `profile` if it is an ICC profile for pixels of that many channels, else None.

    A profile for another colour space (CMYK after conversion, RGB on grey) would make viewers refuse the file.
    """
    if not isinstance(profile, bytes) or len(profile) < 128 or profile[16:20] != _ICC_SPACES[channels]:
        return None
    return profile


def sane_dpi(horizontal: object, vertical: object) -> tuple[float, float] | None:
    """Return the resolution as two floats, or None if it is missing or beyond what files can hold."""
    try:
        pair = float(str(horizontal)), float(str(vertical))
    except (TypeError, ValueError, ArithmeticError):
        return None
    return pair if all(math.isfinite(value) and 1 <= value <= _MAX_DPI for value in pair) else None


def exif_dpi(exif: Image.Exif) -> tuple[float, float] | None:
    """Return the resolution that EXIF or TIFF tags state, in pixels per inch, or None."""
    per_inch = {2: 1.0, 3: 2.54}.get(exif.get(ExifTags.Base.ResolutionUnit, 2))
    pair = sane_dpi(exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution))
    return None if per_inch is None or pair is None else sane_dpi(pair[0] * per_inch, pair[1] * per_inch)


def portable_exif(exif: Image.Exif, from_tiff: bool) -> bytes | None:
    """Return EXIF that fits any file, without orientation, thumbnail and layout of the file; None if nothing is left.

    Damaged EXIF is dropped rather than the picture refused.
    """
    try:
        kept = Image.Exif()
        for tag, value in exif.items():
            if tag in DESCRIPTIVE_TAGS or not (from_tiff or tag in (ExifTags.Base.Orientation, *EXIF_SUB_FOLDERS)):
                kept[tag] = value
        if states_layout(kept.get(ExifTags.Base.ImageDescription)):
            del kept[ExifTags.Base.ImageDescription]
        for tag in EXIF_SUB_FOLDERS:
            folder = {key: value for key, value in sub_folder(exif, tag).items() if key not in _PLACES}
            if folder:
                kept[tag] = folder
        return kept.tobytes() if len(kept) else None
    except Exception:  # Pillow raises a dozen kinds on hostile tags
        return None


def states_layout(description: object) -> bool:
    """Whether an ImageDescription was written for programs, to say how the pixels of this very file are laid out.

    ImageJ, tifffile and the programs of microscopes (OME-XML and others) write such: XML, JSON, or words of their own.
    """
    text = description.decode("latin-1") if isinstance(description, bytes) else str(description)
    return bool(_LAYOUT.match(text.strip("\0 \t\r\n\ufeff")))


def sub_folder(exif: Image.Exif, tag: int) -> dict[int, Any]:
    """Return the tags of one folder inside `exif`, to be changed in place.

    The folder of interoperability, which says that colours are those of Adobe RGB, is inside it, not its offset.
    """
    folder: dict[int, Any] = exif.get_ifd(tag)
    if tag == ExifTags.IFD.Exif and isinstance(folder.get(ExifTags.IFD.Interop), int):
        inner = dict(exif.get_ifd(ExifTags.IFD.Interop))
        folder.pop(ExifTags.IFD.Interop)
        folder.update({ExifTags.IFD.Interop: inner} if inner else {})
    return folder


def exif_for(picture: Picture) -> Image.Exif:
    """Return the EXIF of `picture`, with its pixel counts, if any, corrected."""
    exif = Image.Exif()
    if picture.exif is None:
        return exif
    exif.load(picture.exif)
    details = sub_folder(exif, ExifTags.IFD.Exif)
    sizes = {ExifTags.Base.ExifImageWidth: picture.width, ExifTags.Base.ExifImageHeight: picture.height}
    details.update({tag: size for tag, size in sizes.items() if tag in details})
    sizes = {ExifTags.Base.ImageWidth: picture.width, ExifTags.Base.ImageLength: picture.height}
    exif.update({tag: size for tag, size in sizes.items() if tag in exif})
    return exif
