import numpy as np
import pytest

from imdn_kd.image import video
from tests.image.clips import BT601, BT709, make_clip
from tests.refused import refused

av = pytest.importorskip("av")

LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
"""Weights of red and blue by ITU-R BT.709, FCC, BT.601 (625 and 525 lines), BT.2020."""


def to_yuv(rgb, matrix, full):
    """By the formulas of these recommendations, without rounding; H x W x 3 to 3 x H x W."""
    red, blue = LUMA[matrix]
    r, g, b = np.moveaxis(rgb / 255, -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if full:
        return np.stack([255 * y, 255 * u + 128, 255 * v + 128])
    return np.stack([219 * y + 16, 224 * u + 128, 224 * v + 128])


def to_rgb(yuv, matrix, full):
    red, blue = LUMA[matrix]
    y, u, v = yuv.astype(float)
    y, u, v = (
        (y / 255, (u - 128) / 255, (v - 128) / 255) if full else ((y - 16) / 219, (u - 128) / 224, (v - 128) / 224)
    )
    r, b = y + (2 - 2 * red) * v, y + (2 - 2 * blue) * u
    return 255 * np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1)


def info(matrix, full, pixel_format="yuv444p"):
    return video.VideoInfo(32, 24, None, None, None, pixel_format, matrix, full, 2, 2, None, 0)


@pytest.mark.parametrize("matrix", LUMA)
@pytest.mark.parametrize("full", [False, True])
def test_colours_are_those_of_the_formulas(matrix, full):
    colours = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    stored = to_yuv(colours, matrix, full).round().clip(0, 255).astype(np.uint8)
    read = video.to_rgb(av.VideoFrame.from_ndarray(stored, "yuv444p"), info(matrix, full))
    assert np.abs(read - to_rgb(stored, matrix, full).clip(0, 255)).max() < 0.75
    made = video.from_rgb(colours, info(matrix, full))
    assert np.abs(made.to_ndarray() - to_yuv(colours, matrix, full)).max() < 1.1
    assert made.color_range == 1 + full


@pytest.mark.parametrize(("pixel_format", "rows"), [("yuv420p", 12), ("yuv422p", 24)])
@pytest.mark.parametrize("colour", [(200, 30, 90), (255, 0, 0), (10, 250, 40), (255, 255, 255)])
def test_flat_colours_survive_where_pixels_share_them(pixel_format, rows, colour):
    flat = np.full((24, 32, 3), colour, np.uint8)
    for matrix, full in ((1, False), (6, True)):
        frame = video.from_rgb(flat, info(matrix, full, pixel_format))
        assert [(plane.width, plane.height) for plane in frame.planes] == [(32, 24), (16, rows), (16, rows)]
        assert np.abs(video.to_rgb(frame, info(matrix, full, pixel_format)).astype(int) - flat).max() <= 3


@pytest.mark.parametrize(
    ("size", "colours", "expected"),
    [
        ((32, 24), BT709, 1),
        ((32, 24), BT601, 6),
        ((32, 24), (2, 1, 2, 2), 6),
        ((32, 580), (2, 1, 2, 2), 1),
        ((1280, 24), (2, 1, 2, 2), 1),
    ],
)
def test_a_matrix_that_is_not_stated_is_that_of_the_size(tmp_path, size, colours, expected):
    found = video.read_info(make_clip(tmp_path / "a.mp4", (0, 3600), size=size, colours=colours))
    assert (found.matrix, found.full_range, found.primaries, found.width, found.height) == (
        expected,
        False,
        colours[2],
        *size,
    )


@pytest.mark.parametrize(("pixel_format", "colours"), [("yuvj420p", BT601), ("yuv420p", (1, 2, 1, 1))])
def test_full_range_is_seen(tmp_path, pixel_format, colours):
    codec = "mjpeg" if pixel_format == "yuvj420p" else "libx264"
    path = make_clip(tmp_path / "a.mkv", (0, 3600), codec=codec, pixel_format=pixel_format, colours=colours, options={})
    found = video.read_info(path)
    assert (found.full_range, found.pixel_format) == (True, "yuv420p")


def refusals():
    yield "10 bits", {"pixel_format": "yuv420p10le"}, "a.mp4"
    yield "PQ", {"colours": (9, 1, 9, 16)}, "a.mp4"
    yield "HLG", {"colours": (9, 1, 9, 18)}, "a.mp4"
    yield "alpha", {"codec": "ffv1", "pixel_format": "yuva420p", "options": {}}, "a.mkv"
    yield "RGB", {"codec": "ffv1", "pixel_format": "bgr0", "options": {}}, "a.mkv"
    yield "interlaced", {"flags": 1 << 18}, "a.mkv"


@pytest.mark.parametrize(("options", "name"), [pytest.param(*rest, id=label) for label, *rest in refusals()])
def test_what_the_result_would_not_keep_is_refused(tmp_path, options, name):
    path = make_clip(tmp_path / name, (0, 3600, 7200), **options)
    with refused("video.cannot-keep"):
        list(video.decode_video(path, video.read_info(path)))


def test_a_size_that_changes_is_refused(tmp_path):
    for name, size in (("a.ts", (32, 24)), ("b.ts", (48, 32))):
        make_clip(tmp_path / name, range(0, 30000, 3600), size=size)
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with refused("video.cannot-keep"):
        list(video.decode_video(path, video.read_info(path)))


@pytest.mark.parametrize(
    ("content", "code"),
    [(None, "image.not-found"), (b"", "image.empty"), (b"no video" * 99, "video.damaged"), ("cut", "video.damaged")],
)
def test_what_is_no_video_is_refused(tmp_path, content, code):
    path = tmp_path / "a.mp4"
    if content == "cut":
        content = make_clip(tmp_path / "whole.mp4").read_bytes()[:900]
    if content is not None:
        path.write_bytes(content)
    with refused(code):
        video.read_info(path)


def test_sound_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        samples.rate, samples.pts = 44100, 0
        file.mux(stream.encode(samples))
        file.mux(stream.encode(None))
    with refused("video.no-pictures"):
        video.read_info(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("pixel_format", "size", "possible"),
    [
        ("yuv420p", (31, 24), False),
        ("yuv420p", (32, 23), False),
        ("yuv422p", (32, 23), True),
        ("yuv444p", (31, 23), True),
    ],
)
def test_sides_are_multiples_of_the_pixels_that_share_colours(pixel_format, size, possible):
    if possible:
        video.check_size(info(1, False, pixel_format), *size)
    else:
        with refused("size.impossible"):
            video.check_size(info(1, False, pixel_format), *size)
