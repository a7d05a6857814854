"""Image files in and out, against Pillow, tifffile, the PNG specification and arithmetic."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps, PngImagePlugin

from imdn_kd.errors import InputError
from imdn_kd.image import io as imageio
from imdn_kd.image.io import READABLE, WRITABLE, Picture, find_images, is_image_name, read_image, write_image
from imdn_kd.image.reader import pixels_of
from tests.refused import refused

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY = SRGB[:16] + b"GRAY" + SRGB[20:]  # enough to be carried about
MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "RGBa",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "I;16",
)


def pixels(channels, dtype, size=(13, 17), seed=0):
    shape = size if channels == 1 else (*size, channels)
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def png(depth, colour, rows, width, *chunks):
    """Assemble a PNG by the specification, unfiltered, from packed rows."""
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    for name, data in chunks:
        PngImagePlugin.putchunk(file, name, data)
    PngImagePlugin.putchunk(file, b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    PngImagePlugin.putchunk(file, b"IEND", b"")
    return file.getvalue()


def png16(array, *chunks):
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if array.ndim == 2 else array.shape[2]]
    return png(16, colour, [row.astype(">u2").tobytes() for row in array], array.shape[1], *chunks)


def cmyk_profile():
    """Build a CMYK profile in which cyan is the middle grey of Lab (50, 0, 0) and every other ink is black."""
    ramp = bytes(range(256))
    corners = b"".join(
        {(0, 0, 0, 0): b"\xff\x80\x80", (1, 0, 0, 0): b"\x80\x80\x80"}.get(ink, b"\0\x80\x80")
        for ink in np.ndindex(2, 2, 2, 2)
    )
    identity = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + corners + ramp * 3
    table += b"\0" * (-len(table) % 4)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 79
    right = b"text\0\0\0\0none\0\0\0\0"
    tags, body = [], b""
    for name, data in ((b"desc", text), (b"cprt", right), (b"wtpt", white), (b"A2B0", table)):
        tags.append(struct.pack(">4sII", name, 128 + 4 + 4 * 12 + len(body), len(data)))
        body += data
    total = 128 + 4 + 48 + len(body)
    head = struct.pack(">I4sI4s4s4s", total, b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ") + b"\0" * 12 + b"acsp"
    head += b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061) + b"\0" * 48
    return head + struct.pack(">I", 4) + b"".join(tags) + body


def exif_block():
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Kiebitz"
    exif[ExifTags.Base.Copyright] = "A. Photographer"
    exif[ExifTags.IFD.Exif] = {
        ExifTags.Base.ExposureTime: 0.25,
        ExifTags.Base.DateTimeOriginal: "2024:05:06 07:08:09",
        ExifTags.Base.UserComment: b"ASCII\0\0\0hello",
        ExifTags.Base.ExifImageWidth: 3,
        ExifTags.Base.ExifImageHeight: 4,
    }
    exif[ExifTags.IFD.GPSInfo] = {1: "N", 2: (52.0, 31.0, 12.5)}
    return exif.tobytes()


def check_exif(exif):
    assert exif[ExifTags.Base.Make] == "Kiebitz"
    assert exif[ExifTags.Base.Copyright] == "A. Photographer"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.ExposureTime] == 0.25
    assert details[ExifTags.Base.DateTimeOriginal] == "2024:05:06 07:08:09"
    assert details[ExifTags.Base.UserComment] == b"ASCII\0\0\0hello"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert tuple(map(float, exif.get_ifd(ExifTags.IFD.GPSInfo)[2])) == (52.0, 31.0, 12.5)
    return details


# ---- writing, judged by Pillow and tifffile ----


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
def test_lossless_formats_return_every_bit(tmp_path, suffix, dtype, channels):
    wanted = pixels(channels, dtype)
    write_image(tmp_path / f"a{suffix}", Picture(wanted))
    got = read_image(tmp_path / f"a{suffix}").pixels
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_other_readers_agree_on_tiff(tmp_path, dtype, channels):
    wanted = pixels(channels, dtype)
    write_image(tmp_path / "a.tif", Picture(wanted))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), wanted)
    if dtype == np.uint8 or channels == 1:
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.tif")), wanted)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_other_readers_agree_on_png(tmp_path, channels):
    wanted = pixels(channels, np.uint8)
    write_image(tmp_path / "a.png", Picture(wanted))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.png")), wanted)
    deep = pixels(1, np.uint16)
    write_image(tmp_path / "b.png", Picture(deep))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "b.png")), deep)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png16_written_by_specification_is_read_exactly(tmp_path, channels):
    wanted = pixels(channels, np.uint16)
    (tmp_path / "a.png").write_bytes(png16(wanted))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, wanted)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_rounded_and_alpha_follows_the_rule(tmp_path, suffix, channels):
    deep = pixels(channels, np.uint16)
    exact = deep.astype(np.float64)
    alpha = exact[..., -1:] / 65535 if channels in (2, 4) else None
    colour = exact[..., :-1] if channels in (2, 4) else exact.reshape(*deep.shape[:2], -1)
    if alpha is not None and suffix != ".webp":
        colour = np.rint(colour * alpha + 65535 * (1 - alpha))
    wanted = np.rint(colour * 255 / 65535)
    write_image(tmp_path / f"a{suffix}", Picture(deep), quality=100)
    got = np.array(Image.open(tmp_path / f"a{suffix}"))
    assert got.dtype == np.uint8
    if suffix == ".webp":
        wanted = np.repeat(wanted, 3, 2) if channels < 3 else wanted
        if alpha is not None:
            wanted = np.concatenate([wanted, np.rint(alpha * 255)], 2)
    wanted = wanted[..., 0] if wanted.shape[2] == 1 else wanted
    assert got.shape == wanted.shape
    # Noise at JPEG quality 100: a few levels from the colour transform and the DCT.
    assert np.abs(got - wanted).max() <= (6 if suffix == ".jpg" else 0)


def test_rounding_of_every_sixteen_bit_value(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    write_image(tmp_path / "a.bmp", Picture(ramp))
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.bmp")), np.rint(ramp / 257.0))


def test_large_pictures_are_converted_in_all_bands(tmp_path):
    deep = pixels(4, np.uint16, (700, 3))
    write_image(tmp_path / "a.bmp", Picture(deep))
    alpha = deep[..., 3:] / 65535
    wanted = np.rint(np.rint(deep[..., :3] * alpha + 65535 * (1 - alpha)) / 257)
    np.testing.assert_array_equal(np.array(Image.open(tmp_path / "a.bmp")), wanted)


def test_jpeg_quality_counts_and_colour_is_not_subsampled(tmp_path):
    picture = Picture(pixels(3, np.uint8, (64, 64)))
    write_image(tmp_path / "a.jpg", picture, quality=95)
    write_image(tmp_path / "b.jpg", picture, quality=30)
    assert (tmp_path / "b.jpg").stat().st_size < (tmp_path / "a.jpg").stat().st_size / 2
    assert {layer[1:3] for layer in Image.open(tmp_path / "a.jpg").layer} == {(1, 1)}


@pytest.mark.parametrize("quality", [95, 100])
def test_webp_is_lossless_at_100_only(tmp_path, quality):
    wanted = pixels(4, np.uint8)
    write_image(tmp_path / "a.webp", Picture(wanted), quality=quality)
    assert np.array_equal(np.array(Image.open(tmp_path / "a.webp")), wanted) == (quality == 100)


# ---- what goes along ----


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_profile_exif_and_resolution_survive(tmp_path, suffix, dtype):
    path, again = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
    write_image(path, Picture(pixels(3, dtype), SRGB, exif_block(), (300.0, 150.0)))
    write_image(again, read_image(path))
    picture = read_image(again)
    assert picture.icc_profile == SRGB
    assert picture.dpi == pytest.approx((300, 150), abs=0.02)  # PNG counts per metre
    exif = Image.Exif()
    exif.load(picture.exif)
    check_exif(exif)
    with Image.open(again) if dtype == np.uint8 or suffix != ".tif" else Image.open(path) as theirs:
        theirs.load()
        assert theirs.info["icc_profile"] == SRGB
        details = check_exif(theirs.getexif())
        assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (17, 13)
        if suffix != ".webp":
            assert tuple(map(float, theirs.info["dpi"])) == pytest.approx((300, 150), abs=0.02)


@pytest.mark.parametrize(
    ("extension", "kind"), [(".png", "PNG"), (".jpg", "JPEG"), (".webp", "WEBP"), (".tif", "TIFF")]
)
def test_metadata_written_by_pillow_is_read(tmp_path, extension, kind):
    path = tmp_path / f"a{extension}"
    extra = {} if kind == "WEBP" else {"dpi": (72, 72)}
    Image.fromarray(pixels(3, np.uint8)).save(path, kind, icc_profile=SRGB, exif=exif_block(), **extra)
    picture = read_image(path)
    assert picture.icc_profile == SRGB
    assert picture.dpi == (pytest.approx((72, 72), abs=0.01) if extra else None)
    exif = Image.Exif()
    exif.load(picture.exif)
    check_exif(exif)


def test_tiff_layout_does_not_leak_into_exif(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, np.uint16), photometric="rgb", description="a plover", metadata=None)
    exif = Image.Exif()
    exif.load(read_image(tmp_path / "a.tif").exif)
    assert set(exif) <= {ExifTags.Base.ImageDescription, ExifTags.Base.Software}
    assert exif[ExifTags.Base.ImageDescription] == "a plover"


@pytest.mark.parametrize(
    ("profile", "channels", "kept"), [(SRGB, 1, False), (SRGB, 3, True), (GREY, 2, True), (GREY, 4, False)]
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_profile_of_another_kind_is_not_attached(tmp_path, suffix, profile, channels, kept):
    write_image(tmp_path / f"a{suffix}", Picture(pixels(channels, np.uint8), profile))
    assert ("icc_profile" in Image.open(tmp_path / f"a{suffix}").info) == kept


def test_grey_profile_is_left_out_where_grey_becomes_rgb(tmp_path):
    write_image(tmp_path / "a.webp", Picture(pixels(1, np.uint8), GREY))
    assert "icc_profile" not in Image.open(tmp_path / "a.webp").info


def test_rgb_profile_on_a_grey_file_is_dropped(tmp_path):
    Image.fromarray(pixels(1, np.uint8)).save(tmp_path / "a.jpg", icc_profile=SRGB)
    assert read_image(tmp_path / "a.jpg").icc_profile is None


def test_bmp_keeps_resolution(tmp_path):
    write_image(tmp_path / "a.bmp", Picture(pixels(3, np.uint8), dpi=(300.0, 300.0)))
    assert read_image(tmp_path / "a.bmp").dpi == pytest.approx((300, 300), abs=0.02)


def test_exif_too_long_for_jpeg_is_left_out(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: b"x" * 70000}
    write_image(tmp_path / "a.jpg", Picture(pixels(3, np.uint8), exif=exif.tobytes()))
    assert read_image(tmp_path / "a.jpg").exif is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "PNG16", "TIFF16"])
def test_orientation_is_applied_once(tmp_path, kind, orientation):
    path = tmp_path / "a"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "Kiebitz"
    grey = pixels(1, np.uint16)
    if kind == "PNG16":
        path.write_bytes(png16(grey, (b"eXIf", exif.tobytes()[6:])))
    elif kind == "TIFF16":
        tags = [(274, "H", 1, orientation, True), (271, "s", 0, "Kiebitz", True)]
        tifffile.imwrite(path, grey, photometric="minisblack", extratags=tags, metadata=None)
    else:
        Image.fromarray(pixels(3, np.uint8)).save(
            path, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})
        )
    if kind.endswith("16"):
        carrier = Image.fromarray(grey)
        carrier.getexif()[ExifTags.Base.Orientation] = orientation
        wanted = ImageOps.exif_transpose(carrier)
    else:
        with Image.open(path) as image:
            wanted = ImageOps.exif_transpose(image)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, np.array(wanted))
    kept = Image.Exif()
    kept.load(picture.exif)
    assert ExifTags.Base.Orientation not in kept
    assert kept[ExifTags.Base.Make] == "Kiebitz"


# ---- kinds of pixels ----


def sample(mode):
    colour = Image.fromarray(pixels(3, np.uint8))
    if mode == "I":
        return Image.fromarray(pixels(1, np.uint16).astype(np.int32))
    if mode == "F":
        return Image.fromarray((pixels(1, np.uint16) / 65535).astype(np.float32))
    if mode.startswith("I;16"):
        return Image.frombytes(
            mode, (17, 13), pixels(1, np.uint16).astype(">u2" if mode == "I;16B" else "<u2").tobytes()
        )
    if mode in ("La", "RGBa"):
        return Image.fromarray(pixels(2 if mode == "La" else 4, np.uint8)).convert(mode)
    if mode == "LAB":
        return ImageCms.profileToProfile(
            colour, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    if mode == "PA":
        return colour.quantize(16).convert("PA")
    if mode == "P":
        return colour.quantize(16)
    if mode in ("LA", "RGBA"):
        return Image.fromarray(pixels(len(mode), np.uint8))
    return colour.convert(mode)


def expected(image):
    """Say what a reader should give for what Pillow reads back, by Pillow's own conversions."""
    if image.mode.startswith("I;16") or image.mode == "I":
        return np.array(image).astype(np.uint16)
    if image.mode == "F":
        return np.rint(np.array(image).astype(np.float64) * 65535).astype(np.uint16)
    clear = image.has_transparency_data
    targets = {"1": "L", "L": "L", "LA": "LA", "La": "LA", "I": "I", "PA": "RGBA", "RGBA": "RGBA", "RGBa": "RGBA"}
    return np.array(image.convert(targets.get(image.mode, "RGBA" if clear else "RGB")))


@pytest.mark.parametrize("mode", sorted({*Image.MODES, *MODES}))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_every_mode_in_every_format_that_holds_it(tmp_path, kind, mode):
    path = tmp_path / "a"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sample(mode).save(path, kind)
    except (OSError, ValueError, KeyError) as error:
        pytest.skip(f"Pillow cannot write it: {error}")
    with Image.open(path) as image:
        try:
            image.load()
        except OSError as error:
            pytest.skip(f"Pillow cannot read what it wrote: {error}")
        wanted = expected(image)
    got = read_image(path).pixels
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("depth", "clear"), [(1, 1), (2, 2), (4, 9), (8, 200), (16, 4660)])
def test_transparent_grey_of_a_png(tmp_path, depth, clear):
    values = np.array([[0, 1, clear, 2**depth - 1]] * 3)
    bits = [[int(bit) for value in row for bit in f"{value:0{depth}b}"] for row in values]
    data = png(depth, 0, [np.packbits(row).tobytes() for row in bits], 4, (b"tRNS", struct.pack(">H", clear)))
    (tmp_path / "a.png").write_bytes(data)
    got = read_image(tmp_path / "a.png").pixels
    top = 65535 if depth == 16 else 255
    np.testing.assert_array_equal(got[..., 0], values.astype(int) * top // (2**depth - 1))
    np.testing.assert_array_equal(got[..., 1], np.where(values == clear, 0, top))


@pytest.mark.parametrize("depth", [8, 16])
def test_transparent_colour_of_a_png(tmp_path, depth):
    dtype = np.dtype(f">u{depth // 8}")
    array = pixels(3, np.uint8 if depth == 8 else np.uint16)
    clear = (b"tRNS", struct.pack(">3H", *map(int, array[2, 3])))
    (tmp_path / "a.png").write_bytes(png(depth, 2, [row.astype(dtype).tobytes() for row in array], 17, clear))
    got = read_image(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(got[..., :3], array)
    np.testing.assert_array_equal(got[..., 3] == 0, (array == array[2, 3]).all(-1))


def test_transparent_palette_entries(tmp_path):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    image.putdata([0, 1, 2])
    image.save(tmp_path / "a.png", transparency=bytes([255, 128, 0]))
    wanted = [[[10, 20, 30, 255], [40, 50, 60, 128], [70, 80, 90, 0]]]
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, wanted)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
def test_tiff16_of_other_programs(tmp_path, planar, byteorder, compression):
    wanted = pixels(4, np.uint16)
    given = np.moveaxis(wanted, -1, 0) if planar == "separate" else wanted
    options = {"extrasamples": ["unassalpha"], "compression": compression, "byteorder": byteorder}
    tifffile.imwrite(
        tmp_path / "a.tif", given, photometric="rgb", planarconfig=planar, predictor=bool(compression), **options
    )
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, wanted)


def test_tiff16_white_is_zero(tmp_path):
    given = pixels(1, np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", given, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, 65535 - given)


def test_tiff16_premultiplied_alpha_is_divided_out(tmp_path):
    wanted = np.array([[[1000, 20000, 65535, 65535], [0, 65535, 30000, 32768], [0, 0, 0, 0]]], np.uint16)
    given = wanted.copy()
    given[..., :3] = np.rint(wanted[..., :3] * (wanted[..., 3:] / 65535))
    tifffile.imwrite(tmp_path / "a.tif", given, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(read_image(tmp_path / "a.tif").pixels.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_goes_through_its_profile_and_loses_it(tmp_path, kind):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    image.save(tmp_path / "a", kind, icc_profile=cmyk_profile())
    picture = read_image(tmp_path / "a")
    # L* = 50 of 100 is 119 in sRGB; 128 of 255 rounds it up a little. Pillow's own rule would give (0, 255, 255).
    assert np.abs(picture.pixels.astype(int) - 120).max() <= 2
    assert picture.icc_profile is None


def test_cmyk_with_a_broken_profile_falls_back(tmp_path):
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif", icc_profile=cmyk_profile()[:140])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels[0, 0], (0, 255, 255))


@pytest.mark.parametrize("value", [-1.0, 255.0, float("nan")])
def test_floats_without_a_known_range_are_refused(tmp_path, value):
    Image.fromarray(np.full((4, 4), value, np.float32)).save(tmp_path / "a.tif")
    with refused("image.pixel-format"):
        read_image(tmp_path / "a.tif")


def test_integers_beyond_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 65536, np.int32)).save(tmp_path / "a.tif")
    with refused("image.pixel-format"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_is_read(tmp_path, kind):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    extra = {"lossless": True} if kind == "WEBP" else {}
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:], **extra)
    assert (read_image(tmp_path / "a").pixels == (255, 0, 0)).all()


def test_first_page_of_a_deep_tiff(tmp_path):
    pages = [pixels(3, np.uint16, seed=seed) for seed in range(3)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, pages[0])


def test_content_counts_and_not_the_name(tmp_path):
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a.jpg", "PNG")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.jpg")).pixels, pixels(3, np.uint8))


def test_pixels_read_are_writable_and_contiguous(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a.png", exif=exif)
    flags = read_image(tmp_path / "a.png").pixels.flags
    assert flags.writeable and flags.c_contiguous


# ---- refusals ----


def refusal(path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"hello, world\n" * 50, b"\x89PNG\r\n\x1a\n", b"II*\0\x08\0\0\0", b"BM" + b"\0" * 60]
)
def test_non_images_are_refused(tmp_path, data):
    path = tmp_path / "a.png"
    path.write_bytes(data)
    assert str(refusal(path)).startswith(f"{path}: ")


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    assert refusal(tmp_path / "none.png").code == "image.not-found"
    assert refusal(tmp_path).code == "image.is-folder"
    assert refusal(tmp_path / "a\0b.png").code == "image.not-found"
    os.mkfifo(tmp_path / "pipe.png")
    assert refusal(tmp_path / "pipe.png").code == "image.not-a-file"


def test_a_line_break_in_the_name_stays_out_of_the_message(tmp_path):
    (tmp_path / "a\nb.png").write_bytes(b"nothing")
    refusal(tmp_path / "a\nb.png")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read and write everything")
def test_permissions(tmp_path):
    write_image(tmp_path / "a.png", Picture(pixels(1, np.uint8)))
    (tmp_path / "a.png").chmod(0)
    assert refusal(tmp_path / "a.png").code == "image.no-permission"
    tmp_path.chmod(0o500)
    with refused("image.cannot-write"):
        write_image(tmp_path / "b.png", Picture(pixels(1, np.uint8)))
    tmp_path.chmod(0o700)


def test_unreadable_file_is_refused_in_its_own_words(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"x")

    def denied(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("imdn_kd.image.reader.Path.open", denied)
    assert refusal(tmp_path / "a.png").code == "image.no-permission"


@pytest.mark.parametrize("size", [(40000, 40000), (2**31 - 1, 2**31 - 1), (0, 5)])
def test_impossible_sizes_are_refused_without_decoding(tmp_path, size):
    path = tmp_path / "a.png"
    data = bytearray(png(8, 2, [b"\0\0\0"], 1))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    assert refusal(path).code == ("image.unknown-format" if 0 in size else "image.too-large")


def test_deep_tiff_of_impossible_size_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(3, np.uint16), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageWidth"].overwrite(40000)
        file.pages[0].tags["ImageLength"].overwrite(40000)
    assert refusal(path).code == "image.too-large"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_with_missing_strips_is_refused(tmp_path, dtype):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(3, dtype), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["ImageLength"].overwrite(1000)
    assert refusal(path).code == "image.truncated"


def test_deep_tiff_with_an_empty_strip_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(3, np.uint16), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["StripByteCounts"].overwrite(0)
    assert refusal(path).code == "image.truncated"


@pytest.mark.parametrize(("unit", "factor"), [(2, 1.0), (3, 2.54), (1, None)])
def test_resolution_units_of_a_tiff(tmp_path, unit, factor):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(3, np.uint16), photometric="rgb", resolution=(100, 50), resolutionunit=unit)
    assert read_image(path).dpi == (pytest.approx((100 * factor, 50 * factor)) if factor else None)


def test_image_size_in_exif_follows_the_picture(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageWidth], exif[ExifTags.Base.ImageLength] = 3, 4
    write_image(tmp_path / "a.jpg", Picture(pixels(3, np.uint8), exif=exif.tobytes()))
    theirs = Image.open(tmp_path / "a.jpg").getexif()
    assert (theirs[ExifTags.Base.ImageWidth], theirs[ExifTags.Base.ImageLength]) == (17, 13)


def test_damaged_metadata_costs_the_metadata_and_warns_nobody(tmp_path, recwarn):
    exif = bytearray(exif_block())
    exif[14:16] = b"\xff\xff"
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a.png", exif=bytes(exif[:60]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, pixels(3, np.uint8))
    assert not recwarn.list


def test_large_but_allowed_images_neither_warn_nor_move_the_limit(tmp_path, monkeypatch, recwarn):
    assert imageio.MAX_PIXELS >= 10**9
    Image.new("L", (30, 10)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"none")
    for limit in (100, 200):  # where Pillow by itself refuses, and where it warns
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(tmp_path / "a.png").pixels.shape == (10, 30)
        refusal(tmp_path / "b.png")
        assert limit == Image.MAX_IMAGE_PIXELS
    assert not recwarn.list


def test_existing_files_are_kept_unless_told(tmp_path):
    path = tmp_path / "a.png"
    write_image(path, Picture(pixels(1, np.uint8)))
    before = path.read_bytes()
    with refused("image.exists"):
        write_image(path, Picture(pixels(3, np.uint8)))
    assert path.read_bytes() == before
    write_image(path, Picture(pixels(3, np.uint8)), overwrite=True)
    assert read_image(path).channels == 3


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "nowhere")
    with refused("image.exists"):
        write_image(tmp_path / "a.png", Picture(pixels(1, np.uint8)))


@pytest.mark.parametrize(
    ("name", "shape", "code"),
    [
        ("a.jpg", (1, 65501), "image.too-large"),
        ("a.webp", (16384, 1), "image.too-large"),
        ("a.png", (1, 10**6 + 1), "image.too-large"),
        ("a.xyz", (1, 1), "image.unknown-format"),
        ("a", (1, 1), "image.unknown-format"),
        ("x" * 300 + ".png", (1, 1), "image.cannot-write"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(tmp_path, name, shape, code):
    with refused(code) as caught:
        write_image(tmp_path / name, Picture(np.zeros(shape, np.uint8)))
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "side"), [("a.jpg", 65500), ("a.webp", 16383), ("a.png", 10**6)])
def test_the_limits_themselves_can_be_written(tmp_path, name, side):
    write_image(tmp_path / name, Picture(np.zeros((1, side), np.uint8)))
    assert Image.open(tmp_path / name).size == (side, 1)


def test_a_failing_encoder_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ValueError("two\nlines")

    monkeypatch.setattr("imagecodecs.png_encode", fail)
    with refused("image.cannot-write"):
        write_image(tmp_path / "a.png", Picture(pixels(1, np.uint8)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range_is_refused(tmp_path, quality):
    with refused("image.quality"):
        write_image(tmp_path / "a.jpg", Picture(pixels(1, np.uint8)), quality=quality)


def test_a_folder_as_target_is_refused(tmp_path):
    (tmp_path / "a.png").mkdir()
    with refused("image.is-folder"):
        write_image(tmp_path / "a.png", Picture(pixels(1, np.uint8)), overwrite=True)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_a_picture_checks_its_pixels(array):
    with pytest.raises(ValueError, match="pixels must be"):
        Picture(array)


# ---- names ----


def test_names(tmp_path):
    assert READABLE > WRITABLE
    assert is_image_name("a/b.PNG") and is_image_name("b.gif")
    assert not is_image_name("b.txt") and not is_image_name("._b.png") and not is_image_name("png")


def test_find_images(tmp_path):
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in find_images(tmp_path)] == ["a.JPG", "b.png"]
    assert [path.name for path in find_images(tmp_path, recursive=True)] == ["a.JPG", "b.png", "c.tif"]
    with refused("image.not-a-folder"):
        find_images(tmp_path / "none")


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_pillow_images(mode):
    np.testing.assert_array_equal(pixels_of(sample(mode)), expected(sample(mode)))


def test_pixels_of_refuses_what_it_cannot_scale():
    with refused("image.pixel-format"):
        pixels_of(Image.new("F", (2, 2), 2.0))
