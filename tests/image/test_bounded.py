"""Members of archives are read only as far as a picture can need; the files are made by zipfile and tarfile."""

import io
import struct
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from imdn_kd.data.layouts.archives import members
from imdn_kd.image import bounded
from imdn_kd.image.io import decode_image
from tests.image.test_io import pixels
from tests.refused import refused

MEGABYTE = 2**20
KINDS = ("PNG", "JPEG", "WEBP", "TIFF", "TIFF16", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "none")


@pytest.fixture(autouse=True)
def small_limit(monkeypatch):
    """One megabyte instead of 64 and 16, so that small files show it."""
    monkeypatch.setattr(bounded, "ALWAYS_READ", MEGABYTE)
    monkeypatch.setattr(zipfile.ZipExtFile, "MAX_SEEK_READ", MEGABYTE)


def image(kind, size=(96, 96), **extra):
    file = io.BytesIO()
    if kind == "none":
        return b"\0" * 100
    if kind == "TIFF16":
        tifffile.imwrite(file, pixels(3, np.uint16, size), photometric="rgb", metadata=None)
    else:
        if kind == "AVIF" and "AVIF" not in Image.SAVE:
            pytest.skip("Pillow cannot write AVIF")
        Image.fromarray(pixels(1 if kind == "GIF" else 3, np.uint8, size)).save(file, kind, **extra)
    return file.getvalue()


def archive(folder, form, data):
    path = folder / f"a.{form}"
    if form == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("a.png", data)
    else:
        with tarfile.open(path, "w:gz" if form == "tgz" else "w") as file:
            info = tarfile.TarInfo("a.png")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    ((_, member),) = members(path)
    return member


Image.init()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["zip", "tar", "tgz"])
def test_a_file_much_longer_than_its_picture_is_refused_before_it_is_unpacked(tmp_path, form, kind):
    member = archive(tmp_path, form, image(kind) + bytes(8 * MEGABYTE))
    tracemalloc.start()
    with refused("image.too-long") as caught:
        member.read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(caught.value).startswith(str(tmp_path))
    assert peak < 4 * MEGABYTE


@pytest.mark.parametrize("form", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("AVIF", "none")])
def test_what_a_picture_can_need_is_read(tmp_path, kind, form):
    extra = {"quality": 100} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = image(kind, (400, 380), **extra)
    member = archive(tmp_path, form, data + bytes(max(0, MEGABYTE + 1 - len(data))))
    assert member.size > MEGABYTE
    read = member.read()
    assert len(read) == member.size
    assert decode_image(read, "a").pixels.shape[:2] == (400, 380)


def test_the_directory_of_a_tiff_may_lie_at_its_end(tmp_path):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels(3, np.uint8, (800, 800)), photometric="rgb", metadata=None)
    data = bytearray(file.getvalue())
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    moved = bytes(data[place : place + 2 + 12 * entries + 4])
    struct.pack_into("<I", data, 4, len(data))
    data[place : place + len(moved)] = bytes(len(moved))
    member = archive(tmp_path, "zip", bytes(data) + moved)
    assert decode_image(member.read(), "a").pixels.shape == (800, 800, 3)


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (40000, 40000), (0, 5)])
def test_a_size_that_is_never_decoded_allows_nothing(tmp_path, size):
    data = bytearray(image("PNG"))
    data[16:24] = struct.pack(">II", *size)
    with refused("image.too-long"):
        archive(tmp_path, "zip", bytes(data) + bytes(2 * MEGABYTE)).read()


def test_a_header_that_is_never_ending_is_not_read_to_its_end(tmp_path):
    data = image("PNG")
    chunk = struct.pack(">I", 8 * MEGABYTE) + b"tEXt" + bytes(8 * MEGABYTE + 4)
    member = archive(tmp_path, "zip", data[:33] + chunk + data[33:])
    tracemalloc.start()
    with refused("image.too-long"):
        member.read()
    assert tracemalloc.get_traced_memory()[1] < 4 * MEGABYTE
    tracemalloc.stop()
