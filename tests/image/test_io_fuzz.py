"""Damaged files: each gives a Picture or an InputError of one line, and nothing on standard error."""

import io
import warnings

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms

from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, read_image, write_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def smooth(dtype, channels=3):
    rows, columns = np.mgrid[:24, :20]
    planes = [(rows * (k + 3) + columns * (7 - k)) * np.iinfo(dtype).max // 400 for k in range(channels)]
    return np.stack(planes, -1).astype(dtype)


def seeds(folder):
    """Make one small file of every kind, with metadata, for damaging."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make] = "Kiebitz"
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: 0.25}
    exif = exif.tobytes()
    eight = Image.fromarray(smooth(np.uint8))
    plans = {
        "PNG": {"exif": exif, "dpi": (72, 72)},
        "JPEG": {"exif": exif, "icc_profile": SRGB},
        "WEBP": {"exif": exif},
        "TIFF": {"exif": exif, "dpi": (72, 72)},
        "BMP": {},
        "GIF": {},
    }
    files = []
    for kind, extra in plans.items():
        eight.save(buffer := io.BytesIO(), kind, **extra)
        files.append(buffer.getvalue())
    for extra in ({"compression": "tiff_lzw"}, {"compression": "jpeg"}):
        eight.save(buffer := io.BytesIO(), "TIFF", **extra)
        files.append(buffer.getvalue())
    eight.convert("CMYK").save(buffer := io.BytesIO(), "JPEG")
    files.append(buffer.getvalue())
    tifffile.imwrite(buffer := io.BytesIO(), smooth(np.uint16), photometric="rgb", compression="lzw")
    files.append(buffer.getvalue())
    write_image(folder / "deep.png", Picture(smooth(np.uint16), SRGB, exif, (72.0, 72.0)))
    files.append((folder / "deep.png").read_bytes())
    write_image(folder / "deep.tif", Picture(smooth(np.uint16, 4), SRGB, exif, (72.0, 72.0)))
    files.append((folder / "deep.tif").read_bytes())
    return files


def damaged(data, rng):
    """Cut the file, or change some bytes of its first 64, its last 256 (where TIFFs keep their tags) or anywhere."""
    if rng.random() < 0.25:
        return data[: rng.integers(len(data))]
    low, high = [(0, 64), (max(0, len(data) - 256), len(data)), (0, len(data))][rng.integers(3)]
    changed = bytearray(data)
    for place in rng.integers(low, min(high, len(data)), rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def outcome(path):
    try:
        picture = read_image(path)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).startswith(str(path))
        return False
    assert isinstance(picture, Picture)
    # What was accepted can also be written, metadata and all.
    write_image(path.parent / "again.png", picture, overwrite=True)
    write_image(path.parent / "again.tif", picture, overwrite=True)
    return True


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files(tmp_path, capfd, seed):
    files = seeds(tmp_path)
    rng = np.random.default_rng(seed)
    accepted = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for case in range(120):
            path = tmp_path / "case"
            path.write_bytes(damaged(files[case % len(files)], rng))
            accepted += outcome(path)
    assert 10 < accepted < 110  # the damage neither spares nor kills everything
    assert capfd.readouterr().err == ""


def test_undamaged_seeds_are_accepted(tmp_path):
    for data in seeds(tmp_path):
        (tmp_path / "case").write_bytes(data)
        assert outcome(tmp_path / "case")
