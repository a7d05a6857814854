"""XMP packets: found in image files, and brought in line with a new picture.

XMP specification, parts 1 and 3: https://developer.adobe.com/xmp/docs/XMPSpecifications/
"""

from __future__ import annotations

import re
from typing import BinaryIO

from PIL import Image

_SCANNED = 2**26
_WIDTHS = rb"tiff:ImageWidth|exif:PixelXDimension"
_HEIGHTS = rb"tiff:ImageLength|tiff:ImageHeight|exif:PixelYDimension"
# What describes other parts of the file it came from: gain maps, videos, depth maps, a second packet.
_ELSEWHERE = rb"hdrgm:\w+|GCamera:(?:MotionPhoto|MicroVideo)\w*|xmpNote:HasExtendedXMP"
_DIRECTORY, _DIRECTORY_END = b"<Container:Directory", b"</Container:Directory>"


def find_xmp(image: Image.Image, file: BinaryIO) -> bytes | None:
    """Return the XMP packet of a loaded image; `file` is where it came from."""
    packet = image.info.get("xmp")
    if packet is None and image.format in ("GIF", "JPEG2000"):
        # Pillow does not look for it; the specification lets programs search for the markers.
        file.seek(0)
        _, begin, rest = file.read(_SCANNED).partition(b"<?xpacket begin=")
        body, end, _ = rest.partition(b"<?xpacket end=")
        packet = begin + body + end + b'"w"?>' if end else None
    return checked_packet(packet)


def checked_packet(value: object) -> bytes | None:
    """Return `value` if it can be an XMP packet, else None."""
    return value.rstrip(b"\0") if isinstance(value, bytes) and b"RDF" in value else None


def xmp_for(packet: bytes, width: int, height: int) -> bytes:
    """Return a packet that is true of an upright picture of that size, in a file of nothing else.

    Properties are found by the prefixes that every program gives them.
    """
    for names, value in ((rb"tiff:Orientation", 1), (_WIDTHS, width), (_HEIGHTS, height)):
        packet = re.sub(rb"\b(%s)(\s*=\s*[\"']|>)\s*\d+" % names, rb"\g<1>\g<2>%d" % value, packet)
    packet = re.sub(rb"\b(?:%s)\s*=\s*(\"[^\"]*\"|'[^']*')" % _ELSEWHERE, b"", packet)
    packet = re.sub(rb"<(%s)\b[^<>]*>[^<]*</\1>" % _ELSEWHERE, b"", packet)
    before, _, rest = packet.partition(_DIRECTORY)
    _, end, after = rest.partition(_DIRECTORY_END)
    return before + after if end else packet
