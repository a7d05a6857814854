"""Colours and XMP of image files, kept, converted or told; judged by Pillow, tifffile, LittleCMS and formulas."""

import io
import re
import struct
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from imdn_kd.image.colour import make_profile
from imdn_kd.image.io import WRITABLE, Picture, decode_image, read_image, write_image
from tests.image.test_io import GREY, SRGB, exif_block, pixels, png, png16

WIDE = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)  # the primaries of Display P3
GAMMA = {b"gAMA": struct.pack(">I", 100000), b"cHRM": struct.pack(">8I", *WIDE)}
PQ = {b"cICP": bytes((9, 16, 0, 1)), b"mDCV": bytes(range(24)), b"cLLI": bytes(range(8))}
P3 = {b"cICP": bytes((12, 13, 0, 1))}
PLAIN = {b"sRGB": b"\0", b"gAMA": struct.pack(">I", 45455)}
KNOWN = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")


def packet(attributes=b"", elements=b"", padding=0):
    return (
        b"<?xpacket begin='\xef\xbb\xbf' id='W5M0MpCehiHzreSzNTczkc9d'?>"
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:hdrgm="h" '
        b'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Container="c" '
        b'xmp:Rating="4" ' + attributes + b">" + elements + b"</rdf:Description></rdf:RDF></x:xmpmeta>"
        b"" + b" " * padding + b"<?xpacket end='w'?>"
    )


def png_of(array, chunks):
    if array.dtype == np.uint16:
        return png16(array, *chunks.items())
    return png(8, 0 if array.ndim == 2 else 2, [row.tobytes() for row in array], array.shape[1], *chunks.items())


def chunks_in(data):
    """The chunks of a PNG, by the specification."""
    found, place = {}, 8
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        found.setdefault(kind, data[place + 8 : place + 8 + length])
        place += length + 12
    return found


def light(profile, values):
    """XYZ (D50) that LittleCMS makes of 8-bit values."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    lab = ImageCms.createProfile("LAB")
    image = Image.fromarray(np.uint8([values]))
    made = ImageCms.profileToProfile(image, source, lab, renderingIntent=1, outputMode="LAB")
    lightness = np.asarray(made)[0, :, 0] / 255 * 100
    return np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chunks", [GAMMA, PQ, P3, PLAIN])
def test_png_keeps_every_statement_of_colours(tmp_path, chunks, channels, dtype):
    picture = decode_image(png_of(pixels(channels, dtype), chunks), "a.png")
    assert picture.icc_profile is None
    assert write_image(tmp_path / "a.png", picture) == ()
    written = chunks_in((tmp_path / "a.png").read_bytes())
    assert {kind: written[kind] for kind in KNOWN if kind in written} == chunks
    # The specification wants them before the pixels and the palette.
    assert list(written).index(b"IDAT") > max(list(written).index(kind) for kind in chunks)


def test_png_keeps_them_beside_a_profile(tmp_path):
    write_image(tmp_path / "a.png", Picture(pixels(3, np.uint8), SRGB, colours={**P3, **GAMMA}))
    again = read_image(tmp_path / "a.png")
    assert again.icc_profile == SRGB
    assert again.colours == {**P3, **GAMMA}
    write_image(tmp_path / "a.tif", again)
    assert read_image(tmp_path / "a.tif").icc_profile == SRGB  # the author's own, for programs that do not know cICP


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_linear_colours_become_a_profile_elsewhere(tmp_path, suffix, channels):
    picture = decode_image(png_of(pixels(channels, np.uint8), GAMMA), "a.png")
    assert write_image(tmp_path / f"a{suffix}", picture) == ()
    profile = Image.open(tmp_path / f"a{suffix}").info["icc_profile"]
    grey = channels == 1 and suffix != ".webp"
    values = np.array([0, 32, 64, 128, 192, 255], np.uint8)
    lit = light(profile, values if grey else np.stack([values] * 3, -1))
    # Linear light: Y is the value itself. One step of an 8-bit L is up to 1 % of Y.
    np.testing.assert_allclose(lit, values / 255, atol=0.011)
    if not grey:
        found = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.chromaticity
        got = [found[k][axis] for k in range(3) for axis in (0, 1)]
        np.testing.assert_allclose(got, np.array(WIDE[2:]) / 1e5, atol=2e-4)


@pytest.mark.parametrize(
    ("transfer", "formula"),
    [
        (1, lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))),
        (4, lambda v: v**2.2),
        (5, lambda v: v**2.8),
        (7, lambda v: np.where(v < 0.0912, v / 4, ((v + 0.1115) / 1.1115) ** (1 / 0.45))),
        (8, lambda v: v),
        (13, lambda v: np.where(v < 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)),
        (14, lambda v: np.where(v < 0.081, v / 4.5, ((v + 0.099) / 1.099) ** (1 / 0.45))),
    ],
)
def test_profiles_of_code_points_have_the_curve_of_the_recommendation(transfer, formula):
    values = np.arange(0, 256, 15, dtype=np.uint8)
    profile = make_profile({b"cICP": bytes((12, transfer, 0, 1))}, 3)
    np.testing.assert_allclose(light(profile, np.stack([values] * 3, -1)), formula(values / 255), atol=0.011)


def test_profiles_do_not_depend_on_the_clock(monkeypatch):
    made = make_profile(GAMMA, 3)
    assert struct.unpack(">H", made[24:26])[0] == 2000


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", sorted(WRITABLE - {".png"}))
def test_what_colours_cannot_be_written_is_told(tmp_path, suffix, channels):
    pixel = pixels(channels, np.uint8)
    assert write_image(tmp_path / f"a{suffix}", Picture(pixel, colours=PQ)) == ("colours (cICP, cLLI, mDCV)",)
    assert write_image(tmp_path / f"b{suffix}", Picture(pixel, colours=PLAIN)) == ()
    bad = {b"gAMA": struct.pack(">I", 60000), b"cHRM": bytes(32)}
    told = write_image(tmp_path / f"c{suffix}", Picture(pixel, colours=bad))
    grey = channels == 1 and suffix not in (".webp", ".bmp")  # for which the curve is enough
    assert told == (() if grey else ("colours (cHRM, gAMA)",))


def test_a_bmp_says_what_it_leaves_out(tmp_path):
    picture = Picture(pixels(3, np.uint8), SRGB, exif_block(), xmp=packet(), colours=GAMMA)
    assert write_image(tmp_path / "a.bmp", picture) == ("colour profile", "EXIF", "XMP")


def test_a_grey_profile_on_three_channels_is_told(tmp_path):
    assert write_image(tmp_path / "a.webp", Picture(pixels(1, np.uint8), GREY)) == ("colour profile",)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_chromaticities_of_a_tiff_become_a_profile(tmp_path, dtype):
    ends = [value for number in WIDE for value in (number, 100000)]
    tags = [(318, "2I", 2, tuple(ends[:4]), True), (319, "2I", 6, tuple(ends[4:]), True)]
    tifffile.imwrite(tmp_path / "a.tif", pixels(3, dtype), photometric="rgb", extratags=tags, metadata=None)
    picture = read_image(tmp_path / "a.tif")
    assert picture.colours == {b"cHRM": GAMMA[b"cHRM"]}
    write_image(tmp_path / "b.tif", picture)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        found = ImageCms.ImageCmsProfile(io.BytesIO(file.pages.first.iccprofile)).profile.chromaticity
    np.testing.assert_allclose([found[k][0] for k in range(3)], [0.68, 0.265, 0.15], atol=2e-4)


def test_adobe_rgb_of_cameras_survives(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ColorSpace: 65535, ExifTags.IFD.Interop: {1: "R03"}}
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    picture = read_image(tmp_path / "a.jpg")
    for suffix in (".jpg", ".png", ".webp", ".tif"):
        write_image(tmp_path / f"b{suffix}", picture)
        with Image.open(tmp_path / f"b{suffix}") as theirs:
            assert theirs.getexif().get_ifd(ExifTags.IFD.Interop) == {1: "R03"}, suffix


def test_profiles_in_jpeg_2000_and_bmp_are_found():
    image = Image.fromarray(pixels(3, np.uint8))
    file = io.BytesIO()
    image.save(file, "JPEG2000")
    data = file.getvalue()
    head, colour = data.index(b"jp2h") - 4, data.index(b"colr") - 4
    old = int.from_bytes(data[colour : colour + 4], "big")
    box = struct.pack(">I", len(SRGB) + 11) + b"colr\x02\0\0" + SRGB
    size = struct.pack(">I", int.from_bytes(data[head : head + 4], "big") - old + len(box))
    data = data[:head] + size + data[head + 4 : colour] + box + data[colour + old :]
    assert decode_image(data, "a.jp2").icc_profile == SRGB
    file = io.BytesIO()
    image.save(file, "BMP")
    rows = file.getvalue()[54:]
    header = struct.pack("<IiiHHIIiiII", 124, 17, 13, 1, 24, 0, len(rows), 0, 0, 0, 0) + bytes(16) + b"DEBM" + bytes(48)
    header += struct.pack("<IIII", 0, 124 + len(rows), len(SRGB), 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 124 + len(rows) + len(SRGB), 0, 0, 14 + 124) + header + rows + SRGB
    assert decode_image(data, "a.bmp").icc_profile == SRGB


# ---- XMP ----


def with_xmp(kind, data):
    """The bytes of an image of that kind with an XMP packet."""
    file, image = io.BytesIO(), Image.fromarray(pixels(3, np.uint8))
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", data.decode(), zip=True)
        image.save(file, "PNG", pnginfo=info)
    elif kind == "TIFF16":
        tags = [(700, "B", len(data), data, True)]
        tifffile.imwrite(file, pixels(3, np.uint16), photometric="rgb", extratags=tags, metadata=None)
    elif kind == "TIFF":
        image.save(file, "TIFF", tiffinfo={700: data})
    elif kind == "GIF":
        image.save(file, "GIF")
        block = b"\x21\xff\x0bXMP DataXMP" + data + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
        return file.getvalue()[:-1] + block + b";"
    elif kind == "JPEG2000":
        image.save(file, "JPEG2000")
        box = b"uuid" + bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + data
        return file.getvalue() + struct.pack(">I", len(box) + 4) + box
    else:
        image.save(file, kind, xmp=data)
    return file.getvalue()


@pytest.mark.parametrize("source", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF16", "GIF", "JPEG2000"])
def test_xmp_goes_from_every_format_to_every_format_that_holds_it(tmp_path, source):
    given = packet()
    picture = decode_image(with_xmp(source, given), "a")
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        assert write_image(tmp_path / f"a{suffix}", picture) == ()
        with Image.open(tmp_path / f"a{suffix}") as theirs:
            theirs.load()
            found = theirs.info["xmp"]
            assert properties(found)["Rating"] == "4"
        assert re.sub(b"[\"']", b"", found) == re.sub(b"[\"']", b"", given)
        assert read_image(tmp_path / f"a{suffix}").xmp == found


def properties(data):
    """Local names and values of what a packet says."""
    (description,) = ElementTree.fromstring(data).iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    found = description.attrib | {child.tag: child.text for child in description}
    return {name.rpartition("}")[2]: value for name, value in found.items()}


STALE = packet(
    b'tiff:Orientation="6" tiff:ImageWidth="17" exif:PixelYDimension="17" hdrgm:Version="1.0"',
    b"<tiff:ImageLength>13</tiff:ImageLength><exif:PixelXDimension>13</exif:PixelXDimension>"
    b"<Container:Directory><rdf:Seq><rdf:li/></rdf:Seq></Container:Directory><hdrgm:GainMapMax>2</hdrgm:GainMapMax>",
)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif"])
def test_xmp_is_true_of_the_new_picture(tmp_path, kind, suffix):
    source = read_image_of(tmp_path, with_xmp(kind, STALE))
    assert (source.width, source.height) == (13, 17)  # the orientation in XMP counts where EXIF has none
    path = tmp_path / f"b{suffix}"
    write_image(path, Picture(np.zeros((34, 26, 3), np.uint8), xmp=source.xmp))
    with Image.open(path) as theirs:
        theirs.load()
        assert theirs.getexif().get(ExifTags.Base.Orientation, 1) == 1
        told = properties(theirs.info["xmp"])
        held = {"Orientation": "1"} | {
            key: told[key] for key in told if key in ("Orientation", "ImageWidth", "ImageLength")
        }
        assert held == {"Orientation": "1", "ImageWidth": "26", "ImageLength": "34"}
        assert (told["PixelXDimension"], told["PixelYDimension"]) == ("26", "34")
        assert told["Rating"] == "4"
        assert not {"Directory", "Version", "GainMapMax"} & told.keys()
    assert read_image(path).pixels.shape == (34, 26, 3)


def read_image_of(folder, data):
    (folder / "given").write_bytes(data)
    return read_image(folder / "given")


def test_xmp_too_long_for_a_jpeg_is_told(tmp_path):
    picture = Picture(pixels(3, np.uint8), xmp=packet(padding=65504))
    assert write_image(tmp_path / "a.jpg", picture) == ("XMP",)
    fitting = packet(padding=65504 - len(packet()))
    assert write_image(tmp_path / "b.jpg", Picture(pixels(3, np.uint8), xmp=fitting)) == ()
    assert Image.open(tmp_path / "b.jpg").info["xmp"] == fitting
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.UserComment: b"x" * 70000}
    assert write_image(tmp_path / "c.jpg", Picture(pixels(3, np.uint8), exif=exif.tobytes())) == ("EXIF",)


@pytest.mark.parametrize("damaged", [b"", b"no packet", b"\xff\xfeRDF", STALE[:300], b"<hdrgm:a" * 20000 + b"RDF"])
def test_damaged_xmp_costs_no_picture(tmp_path, damaged):
    picture = decode_image(with_xmp("WEBP", damaged), "a")
    for suffix in (".png", ".jpg", ".webp", ".tif"):
        write_image(tmp_path / f"a{suffix}", picture)
        assert read_image(tmp_path / f"a{suffix}").pixels.shape == (13, 17, 3)


# ---- descriptions of a layout ----

STACK = np.zeros((3, 13, 17), np.uint16)
DESCRIBED = {
    "imagej": {"data": STACK, "imagej": True, "metadata": {"axes": "ZYX"}},
    "ome": {"data": STACK, "ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.1}},
    "shaped": {"data": STACK, "shaped": True, "metadata": {"axes": "ZYX"}},
    "svs": {"description": "Aperio Image Library v11.2.1\r\n46000x32914 [0,100 46000x32893] (256x256) J2K/YUV16 Q=70"},
    "scn": {"description": '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"></scn>'},
    "metaseries": {
        "description": '<MetaData><prop id="ImageSpaceWidth" value="17"/></MetaData>',
        "software": "MetaSeries",
    },
    "scanimage": {"description": "state.configPath='c'\rstate.acq.linesPerFrame=13\r"},
    "astrotiff": {"description": "SIMPLE  =                    T\nNAXIS1  =                   17\nEND"},
    "streak": {"description": "[Application],Date=01-01-2020,Camera=1\r\n[Grabber],Width=17"},
}


@pytest.mark.parametrize("kind", DESCRIBED)
def test_a_description_of_the_layout_stays_with_its_file(tmp_path, kind):
    """Which kinds there are is what tifffile knows of."""
    options = {"data": STACK[0], "photometric": "minisblack", "metadata": None, "software": False, **DESCRIBED[kind]}
    tifffile.imwrite(tmp_path / "a.tif", **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        given = file.pages.first.description
        assert getattr(file.pages.first, f"is_{kind}")
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = given
    exif[ExifTags.Base.Make] = "Kiebitz"
    Image.fromarray(STACK[0].astype(np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    for source in ("a.tif", "a.jpg"):
        for suffix in (".tif", ".png", ".jpg", ".webp"):
            write_image(
                tmp_path / f"b{suffix}",
                Picture(pixels(1, np.uint8, (26, 34)), exif=read_image(tmp_path / source).exif),
                overwrite=True,
            )
            with Image.open(tmp_path / f"b{suffix}") as theirs:
                held = theirs.getexif()
                assert ExifTags.Base.ImageDescription not in held
                assert (ExifTags.Base.Make in held) == (source == "a.jpg")


@pytest.mark.parametrize(
    "text", ["a plover", "[Portrait] of a plover", "{plover}", "Images=3", "a < b > c", '{"', "shape of a plover"]
)
def test_a_description_for_people_is_kept(tmp_path, text):
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = text
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    write_image(tmp_path / "b.tif", read_image(tmp_path / "a.jpg"))
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.pages.first.description == text


def test_places_in_the_former_picture_are_left_out():
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {
        0x9214: (5, 6, 2, 2),
        0xA214: (5, 6),
        ExifTags.Base.Flash: 1,
    }
    file = io.BytesIO()
    Image.fromarray(pixels(3, np.uint8)).save(file, "JPEG", exif=exif)
    kept = Image.Exif()
    kept.load(decode_image(file.getvalue(), "a").exif)
    assert dict(kept.get_ifd(ExifTags.IFD.Exif)) == {ExifTags.Base.Flash: 1}
