"""What file formats hold of a picture's metadata."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import ExifTags, Image

from imdn_kd.image.colour import make_profile, states_srgb
from imdn_kd.image.picture import Picture, exif_for, fitting_profile
from imdn_kd.image.xmp import xmp_for

_ANY_LENGTH = 2**31


@dataclass(frozen=True)
class Holds:
    """What a file format holds: ICC profiles, chunks of colours, and how many bytes of EXIF and XMP."""

    profile: bool = True
    colours: bool = False
    exif: int = _ANY_LENGTH
    xmp: int = _ANY_LENGTH


@dataclass(frozen=True)
class Metadata:
    """The metadata of a picture as one format holds them.

    Attributes:
        profile: ICC profile that fits the pixels as they are written.
        colours: chunks as in `Picture`.
        exif: with the sizes of the picture; empty if there is none.
        xmp: with the sizes of the picture.
        left_out: what the format does not hold, in words.
    """

    profile: bytes | None = None
    colours: dict[bytes, bytes] = field(default_factory=dict)
    exif: Image.Exif = field(default_factory=Image.Exif)
    xmp: bytes | None = None
    left_out: tuple[str, ...] = ()


def metadata_for(picture: Picture, holds: Holds, channels: int, *, dpi_in_exif: bool = False) -> Metadata:
    """Bring the metadata of `picture` into what a format holds.

    Where a format has no chunks of colours a profile is made of them, unless they come to sRGB.

    Args:
        picture: the picture.
        holds: what the format holds.
        channels: of the pixels as they are written.
        dpi_in_exif: state the resolution there even if EXIF does not state it so far.
    """
    left_out = []
    colours = dict(picture.colours) if holds.colours else {}
    profile = fitting_profile(picture.icc_profile, channels)
    needed = picture.icc_profile is not None
    if profile is None and not colours and picture.colours and not states_srgb(picture.colours):
        profile, needed = make_profile(picture.colours, channels), True
    if not holds.profile:
        profile = None
    if needed and profile is None and not colours:
        left_out.append("colour profile" if picture.icc_profile else f"colours ({_names(picture)})")
    exif = exif_for(picture)
    if picture.dpi is not None and (dpi_in_exif or ExifTags.Base.XResolution in exif):
        exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = picture.dpi
        exif[ExifTags.Base.ResolutionUnit] = 2
    if picture.exif is not None and len(exif.tobytes()) > holds.exif:
        exif = Image.Exif()
        left_out.append("EXIF")
    xmp = None if picture.xmp is None else xmp_for(picture.xmp, picture.width, picture.height)
    if xmp is not None and len(xmp) > holds.xmp:
        xmp = None
        left_out.append("XMP")
    return Metadata(profile, colours, exif, xmp, tuple(left_out))


def _names(picture: Picture) -> str:
    return ", ".join(sorted(kind.decode() for kind in picture.colours))
