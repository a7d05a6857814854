"""All frames of animations and all pages of TIFFs, judged by Pillow and tifffile."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image

from imdn_kd.image.frame_writer import further_pictures, holds_all, write_frames
from imdn_kd.image.frames import Frame, Frames, read_frames
from imdn_kd.image.io import Picture, read_image
from imdn_kd.inference.batch import run_jobs
from imdn_kd.inference.file_jobs import plan_jobs
from tests.image.test_io import SRGB, check_exif, exif_block, pixels, png16
from tests.image.test_metadata import GAMMA, PQ, chunks_in, packet
from tests.refused import refused

COLOURS = ((255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (0, 0, 0, 0), (255, 255, 255, 255))
DURATIONS = (40, 100, 250, 70, 1000)


def frames(size=(8, 6)):
    """Five frames whose left half differs."""
    found = []
    for colour in COLOURS:
        image = Image.new("RGBA", size, (9, 90, 200, 255))
        image.paste(colour, (0, 0, size[0] // 2, size[1]))
        found.append(image)
    return found


def save(path, kind, **extra):
    first, *rest = frames()
    lossless = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    first.save(path, kind, save_all=True, append_images=rest, **lossless, **extra)


def seen(path):
    """What Pillow sees: RGBA and duration of each frame, and the loop count."""
    found = []
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            image.load()
            found.append((np.array(image.convert("RGBA")), image.info.get("duration")))
        return [frame for frame, _ in found], [duration for _, duration in found], image.info.get("loop")


def doubled(picture, on_progress=None):
    return replace(picture, pixels=picture.pixels.repeat(2, axis=0).repeat(2, axis=1))


def enlarge(path, suffix, folder):
    (result,) = run_jobs(
        plan_jobs([str(path)], folder / "out", suffix=suffix),
        doubled,
        lambda size: (2 * size[0], 2 * size[1]),
        quality=100,
    )
    return result


@pytest.mark.parametrize("suffix", [".png", ".webp"])
@pytest.mark.parametrize(
    ("kind", "loop", "shown"),
    [("GIF", None, 1), ("GIF", 0, 0), ("GIF", 2, 3), ("WEBP", 0, 0), ("WEBP", 4, 4), ("PNG", 0, 0), ("PNG", 3, 3)],
)
def test_animations_keep_every_frame_its_duration_and_the_loop(tmp_path, kind, loop, shown, suffix):
    path = tmp_path / f"a.{kind.lower()}"
    save(
        path,
        kind,
        duration=list(DURATIONS),
        disposal=2 if kind == "GIF" else 0,
        **({} if loop is None else {"loop": loop}),
    )
    wanted, durations, _ = seen(path)
    assert (len(wanted), durations) == (5, list(DURATIONS))
    result = enlarge(path, suffix, tmp_path)
    assert (result.status, result.left_out, result.size) == ("done", (), (12, 16))
    got, durations, loops = seen(result.job.target)
    assert durations == list(DURATIONS)
    assert loops == shown
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize(
    ("suffix", "pages", "told"),
    [(".tif", 5, "durations"), (".jpg", 1, "4 further frames"), (".bmp", 1, "4 further frames")],
)
def test_what_of_an_animation_does_not_fit_is_told(tmp_path, kind, suffix, pages, told):
    save(tmp_path / "a.gif", kind, duration=50, loop=0)
    result = enlarge(tmp_path / "a.gif", suffix, tmp_path)
    assert (result.status, result.left_out) == ("done", (told,))
    with Image.open(result.job.target) as image:
        assert getattr(image, "n_frames", 1) == pages


def test_steps_that_cover_a_part_of_the_canvas_are_put_on_it(tmp_path):
    """GIF and PNG store what changes; every frame written is whole."""
    first, *rest = (image.convert("RGB") for image in frames((40, 30)))
    for kind in ("GIF", "PNG"):
        first.save(tmp_path / "a", kind, save_all=True, append_images=rest, duration=50)
        wanted, _, _ = seen(tmp_path / "a")
        got, _, _ = seen(enlarge(tmp_path / "a", ".png", tmp_path / kind).job.target)
        np.testing.assert_array_equal(np.stack(got)[:, ::2, ::2], np.stack(wanted))


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_picture_for_programs_without_animations(tmp_path, suffix):
    first, *rest = frames()
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, default_image=True, duration=[70, 80, 90, 100])
    wanted, _, _ = seen(tmp_path / "a.png")
    result = enlarge(tmp_path / "a.png", suffix, tmp_path)
    got, durations, _ = seen(result.job.target)
    kept = suffix == ".png"
    assert result.left_out == (() if kept else ("the picture for programs without animations",))
    assert durations[-4:] == [70, 80, 90, 100] and len(got) == 4 + kept
    np.testing.assert_array_equal(np.stack(got)[:, ::2, ::2], np.stack(wanted[0 if kept else 1 :]))
    if kept:
        with Image.open(result.job.target) as image:
            assert image.default_image


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_metadata_of_an_animation(tmp_path, suffix):
    picture = Picture(pixels(4, np.uint8), SRGB, exif_block(), (300.0, 300.0), packet())
    other = replace(picture, pixels=pixels(4, np.uint8, seed=1))
    shown = Frames("animation", 2, 0, iter([Frame(picture, 20.0), Frame(other, 30.0)]))
    write_frames(tmp_path / f"a{suffix}", shown, quality=100)
    again = read_image(tmp_path / f"a{suffix}")
    assert (again.icc_profile, again.xmp) == (SRGB, packet())
    exif = Image.Exif()
    exif.load(again.exif)
    assert check_exif(exif)[ExifTags.Base.ExifImageWidth] == 17
    got, _, _ = seen(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(got, [picture.pixels, other.pixels])


def test_colours_of_an_animated_png_are_kept(tmp_path):
    shown = [Frame(Picture(pixels(4, np.uint16, seed=seed), colours={**PQ, **GAMMA}), 20.0) for seed in range(3)]
    assert write_frames(tmp_path / "a.png", Frames("animation", 3, 0, iter(shown))) == ()
    chunks = chunks_in((tmp_path / "a.png").read_bytes())
    assert {kind: chunks[kind] for kind in (*PQ, *GAMMA)} == {**PQ, **GAMMA}
    # Sixteen bits: the first frame is what programs without animations read.
    np.testing.assert_array_equal(read_image(tmp_path / "a.png").pixels, shown[0].picture.pixels)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_orientation_turns_every_frame(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    save(tmp_path / "a.webp", "WEBP", exif=exif, duration=40)
    wanted, _, _ = seen(tmp_path / "a.webp")
    got, _, _ = seen(enlarge(tmp_path / "a.webp", ".png", tmp_path).job.target)
    turns = {1: 0, 3: 2, 6: 3}[orientation]
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(ours[::2, ::2], np.rot90(theirs, turns))


@pytest.mark.parametrize("duration", [0, 1, 10, 16.7, 33.333, 41.7083, 65535, 70001, 10**6])
def test_durations_in_a_png_are_exact_to_a_tenth_of_a_percent(tmp_path, duration):
    shown = [Frame(Picture(pixels(4, np.uint8, seed=seed)), duration) for seed in range(2)]
    write_frames(tmp_path / "a.png", Frames("animation", 2, 0, iter(shown)))
    assert seen(tmp_path / "a.png")[1] == pytest.approx([duration] * 2, rel=1e-3)


# ---- pages ----


def test_pages_of_a_tiff_of_any_kind_and_size_are_kept(tmp_path):
    pages = [pixels(channels, dtype, (5 + channels, 9)) for channels in (3, 1, 4, 2) for dtype in (np.uint8, np.uint16)]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, page in enumerate(pages):
            channels = 1 if page.ndim == 2 else page.shape[2]
            alpha = {"extrasamples": ["unassalpha"], "planarconfig": "contig"} if channels in (2, 4) else {}
            kind = "rgb" if channels > 2 else "minisblack"
            file.write(
                page,
                photometric=kind,
                description=f"page {number}",
                resolution=(100 + number, 200),
                metadata=None,
                **alpha,
            )
    result = enlarge(tmp_path / "a.tif", None, tmp_path)
    assert (result.status, result.left_out) == ("done", ())
    with tifffile.TiffFile(result.job.target) as file:
        assert [page.description for page in file.pages] == [f"page {number}" for number in range(8)]
        assert [page.resolution[0] for page in file.pages] == [100 + number for number in range(8)]
        for page, wanted in zip(file.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), wanted.repeat(2, 0).repeat(2, 1))


def test_exif_of_every_page_is_its_own(tmp_path):
    exifs = []
    for seconds in (0.25, 0.5):
        exif = Image.Exif()
        exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: seconds}
        exifs.append(exif)
    shown = [Frame(Picture(pixels(3, np.uint8), exif=exif.tobytes())) for exif in exifs]
    write_frames(tmp_path / "a.tif", Frames("pages", 2, 0, iter(shown)))
    with Image.open(tmp_path / "a.tif") as image:
        for page, seconds in enumerate((0.25, 0.5)):
            image.seek(page)
            assert image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == seconds
    again = [frame.picture for frame in read_frames(tmp_path / "a.tif").pictures]
    for picture, seconds in zip(again, (0.25, 0.5), strict=True):
        exif = Image.Exif()
        exif.load(picture.exif)
        assert exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] == seconds


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_previews_and_masks_are_no_pages(tmp_path, dtype):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for kind in (0, 1, 0, 2):  # 2 means a page of several
            file.write(pixels(3, dtype), photometric="rgb", subfiletype=kind, metadata=None)
        file.write(np.ones((13, 17), bool), photometric="minisblack", subfiletype=4, metadata=None)
    assert read_frames(tmp_path / "a.tif").count == 3
    assert len(list(read_frames(tmp_path / "a.tif").pictures)) == 3


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg", ".bmp"])
def test_pages_are_no_animation(tmp_path, suffix):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for seed in range(3):
            file.write(pixels(3, np.uint16, seed=seed), photometric="rgb", metadata=None, software=False)
    result = enlarge(tmp_path / "a.tif", suffix, tmp_path)
    assert (result.status, result.left_out) == ("done", ("2 further pages",))
    assert getattr(Image.open(result.job.target), "n_frames", 1) == 1


@pytest.mark.parametrize("kind", [{"imagej": True}, {"shaped": True}])
def test_pages_without_directories_are_refused(tmp_path, kind):
    with tifffile.TiffWriter(tmp_path / "a.tif", **kind) as file:
        file.write(np.zeros((3, 9, 9), np.uint16), photometric="minisblack", contiguous=True, truncate=True)
    with refused("image.unlisted-pages"):
        read_frames(tmp_path / "a.tif")
    with tifffile.TiffWriter(tmp_path / "b.tif", **kind) as file:
        file.write(np.zeros((3, 9, 9), np.uint16), photometric="minisblack")
    assert read_frames(tmp_path / "b.tif").count == 3


# ---- other pictures in a JPEG, and files of one ----


def multi_picture(*kinds):
    """A JPEG with further pictures of these kinds (CIPA DC-007)."""
    file = io.BytesIO()
    first, *rest = (image.convert("RGB") for image in frames()[: 1 + len(kinds)])
    first.save(file, "MPO", save_all=True, append_images=rest)
    data = bytearray(file.getvalue())
    for number, kind in enumerate(kinds, 1):
        entries = data.index(b"MPF\0") + 4
        start = data.index(struct.pack("<HHI", 0xB002, 7, 16 * (1 + len(kinds))), entries)
        (offset,) = struct.unpack_from("<I", data, start + 8)
        struct.pack_into("<I", data, entries + offset + 16 * number, kind)
    return bytes(data)


@pytest.mark.parametrize(
    ("kinds", "told"),
    [((0x010001,), ()), ((0,), ("1 further pictures",)), ((0x010002, 0x020002), ("1 further pictures",))],
)
def test_further_pictures_in_a_jpeg_are_told_unless_they_are_previews(tmp_path, kinds, told):
    (tmp_path / "a.jpg").write_bytes(multi_picture(*kinds))
    result = enlarge(tmp_path / "a.jpg", None, tmp_path)
    assert (result.status, result.left_out) == ("done", told)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000"])
def test_a_single_picture_is_read_as_ever(tmp_path, kind):
    Image.fromarray(pixels(3, np.uint8)).save(tmp_path / "a", kind)
    found = read_frames(tmp_path / "a")
    assert (found.count, further_pictures(found)) == (1, ())
    assert holds_all("a.jpg", found)
    (frame,) = found.pictures
    np.testing.assert_array_equal(frame.picture.pixels, read_image(tmp_path / "a").pixels)


# ---- failures ----


@pytest.mark.parametrize(("kind", "suffix"), [("GIF", ".png"), ("WEBP", ".webp"), ("PNG", ".png"), ("TIFF", ".tif")])
def test_a_file_cut_short_leaves_nothing(tmp_path, kind, suffix):
    save(tmp_path / "a", kind)
    data = (tmp_path / "a").read_bytes()
    for part in (0.5, 0.9):
        (tmp_path / "a").write_bytes(data[: int(len(data) * part)])
        result = enlarge(tmp_path / "a", suffix, tmp_path)
        if result.status == "done":  # of a GIF whose end is missing
            assert seen(result.job.target)[0]
            result.job.target.unlink()
        else:
            assert result.reason.startswith(str(tmp_path / "a"))
        assert not list((tmp_path / "out").glob("*")) and not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_errors_of_the_work_pass_and_leave_nothing(tmp_path, suffix):
    def broken():
        yield Frame(Picture(pixels(4, np.uint8)), 20.0)
        raise RuntimeError("of the network")

    with pytest.raises(RuntimeError, match="of the network"):
        write_frames(tmp_path / f"a{suffix}", Frames("animation", 2, 0, broken()))
    assert not list(tmp_path.iterdir())


def test_existing_files_are_kept_unless_told(tmp_path):
    shown = [Frame(Picture(pixels(4, np.uint8)), 20.0)] * 2
    (tmp_path / "a.png").write_bytes(b"mine")
    with refused("image.exists"):
        write_frames(tmp_path / "a.png", Frames("animation", 2, 0, iter(shown)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"mine"]
    write_frames(tmp_path / "a.png", Frames("animation", 2, 0, iter(shown)), overwrite=True)
    assert len(seen(tmp_path / "a.png")[0]) == 2


def test_sixteen_bit_grey_png_is_still_read_exactly(tmp_path):
    (tmp_path / "a.png").write_bytes(png16(pixels(1, np.uint16)))
    (frame,) = read_frames(tmp_path / "a.png").pictures
    np.testing.assert_array_equal(frame.picture.pixels, pixels(1, np.uint16))
