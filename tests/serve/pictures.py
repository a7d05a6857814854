"""Picture files that a server meets."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from imdn_kd.image.io import Picture, write_image
from tests.fake_set import picture
from tests.image.test_io import SRGB, exif_block

BOMB = (30000, 30000)
"""Width and height, px."""


def png_header(width: int, height: int) -> bytes:
    """A PNG of this size that ends where its pixels would begin."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def good(folder: Path) -> dict[str, Path]:
    """Small pictures of many kinds."""
    colour = picture((20, 31), 1)
    deep = colour.astype(np.uint16) * 257
    alpha = np.dstack([colour, 255 - colour[..., 0]])
    pictures = {
        "photo.jpg": Picture(colour, SRGB, exif_block(), (300.0, 300.0)),
        "deep.png": Picture(np.dstack([deep, deep[..., 1]]), SRGB),
        "grey.tif": Picture(deep[..., 0]),
        "clear.webp": Picture(alpha),
        "dot.png": Picture(colour[:1, :1]),
        "strip.bmp": Picture(colour[:2, :3]),
    }
    for name, each in pictures.items():
        write_image(folder / name, each)
    frames = [Image.fromarray(picture((9, 12), seed)) for seed in range(3)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:], duration=50)
    frames[0].save(folder / "pages.tif", save_all=True, append_images=[Image.new("RGB", (5, 4))])
    Image.fromarray(colour).convert("P").save(folder / "palette.png")
    Image.fromarray(colour).convert("CMYK").save(folder / "print.jpg")
    return {path.name: path for path in sorted(folder.iterdir())}


def bombs(folder: Path) -> dict[str, Path]:
    """Small files of very large pictures."""
    (folder / "bomb.png").write_bytes(png_header(*BOMB))
    # Only the second page is large; of the third file the samples are deep, which Pillow does not read.
    for name, pages in (
        ("pages.tif", [np.zeros((4, 4), np.uint8)] * 2),
        ("deep.tif", [np.zeros((4, 4, 3), np.uint16)]),
    ):
        tifffile.imwrite(folder / name, pages[0], metadata=None)
        for page in pages[1:]:
            tifffile.imwrite(folder / name, page, append=True, metadata=None)
        with tifffile.TiffFile(folder / name, mode="r+b") as tiff:
            for tag, value in zip(("ImageWidth", "ImageLength"), BOMB, strict=True):
                tiff.pages[-1].tags[tag].overwrite(value)
    frames = [Image.new("L", (2, 2), number) for number in range(60)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    film = (folder / "film.gif").read_bytes()
    (folder / "film.gif").write_bytes(film[:6] + struct.pack("<HH", 2000, 2000) + film[10:])
    data = io.BytesIO()
    Image.new("RGB", (8, 8)).save(data, "JPEG")
    at = data.getvalue().index(b"\xff\xc0") + 5
    (folder / "bomb.jpg").write_bytes(
        data.getvalue()[:at] + struct.pack(">HH", 30000, 30000) + data.getvalue()[at + 4 :]
    )
    return {path.name: path for path in sorted(folder.iterdir())}
