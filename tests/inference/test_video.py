import json
import multiprocessing
import os
import signal
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from imdn_kd.archs import IMDN_RTC
from imdn_kd.image import video
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.inference.video import upscale_video, video_target
from tests.cli.run import run
from tests.image.clips import BT601, BT709, SIZE, TIME_BASE, UNEVEN, make_clip
from tests.refused import refused

av = pytest.importorskip("av")


def twice(picture):
    return replace(picture, pixels=picture.pixels.repeat(2, 0).repeat(2, 1))


def twice_the_size(size):
    return 2 * size[0], 2 * size[1]


def upscale(source, target, enlarge=twice, **options):
    return upscale_video(source, target, enlarge, twice_the_size, **{"settings": {}, **options})


@pytest.fixture
def parts_of_four(monkeypatch):
    monkeypatch.setattr("imdn_kd.inference.video.PART", 4)


def described(path):
    """What players see: pictures with times and levels, properties of the pictures, and the sound as it is stored."""
    with av.open(str(path)) as file:
        (stream,) = file.streams.video
        frames = list(file.decode(stream))
        context = stream.codec_context
        seen = {
            "times": [frame.pts * frame.time_base for frame in frames],
            "levels": [round(float(frame.to_ndarray(format="gray").mean())) for frame in frames],
            "colours": (context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            "format": context.pix_fmt,
            "aspect": stream.sample_aspect_ratio,
            "rotation": frames[0].rotation,
            "title": file.metadata.get("title"),
        }
        size = (context.width, context.height)
    with av.open(str(path)) as file:
        sound = (
            [(packet.pts * packet.time_base, bytes(packet)) for packet in file.demux(audio=0) if packet.size]
            if (file.streams.audio)
            else []
        )
        seen["sound"] = sound
        seen["language"] = [stream.language for stream in file.streams.audio]
    return size, seen


@pytest.mark.usefixtures("parts_of_four")
@pytest.mark.parametrize(("suffix", "workers"), [(".mp4", 1), (".mkv", 3), (".mov", 3)])
@pytest.mark.parametrize(
    "options",
    [
        {"colours": BT709, "rotation": 90, "sound": True},
        {"colours": BT601, "aspect": Fraction(4, 3), "pixel_format": "yuv444p"},
        {"colours": (1, 2, 1, 1), "pixel_format": "yuv422p"},
    ],
    ids=["turned", "wide", "full"],
)
def test_everything_but_the_size_stays(tmp_path, suffix, workers, options):
    source = make_clip(tmp_path / f"a{suffix}", **options)
    result = upscale(source, tmp_path / f"b{suffix}", workers=workers)
    (size, before), (large, after) = described(source), described(tmp_path / f"b{suffix}")
    assert (size, large) == (SIZE, (64, 48))
    levels = after.pop("levels")
    assert np.abs(np.subtract(levels, before.pop("levels"))).max() <= 2
    assert after == before
    assert (result.frames, result.size, result.left_out) == (len(UNEVEN), (48, 64), ())
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{suffix}", f"b{suffix}"]
    if suffix != ".mkv":  # whose time stamps are whole milliseconds
        assert before["times"] == [time * TIME_BASE for time in UNEVEN]


def test_subtitles_are_copied_where_the_format_holds_them_and_told_otherwise(tmp_path):
    (tmp_path / "a.srt").write_text("1\n00:00:00,100 --> 00:00:00,400\nA line\n\n2\n00:00:00,450 --> 00:00:00,500\nB\n")
    clip = make_clip(tmp_path / "a.mp4")
    names = (str(clip), str(tmp_path / "a.srt"))
    with av.open(names[0]) as pictures, av.open(names[1]) as text, av.open(str(tmp_path / "a.mkv"), "w") as made:
        streams = [made.add_stream_from_template(file.streams[0]) for file in (pictures, text)]
        for file, stream in zip((pictures, text), streams, strict=True):
            for packet in file.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    made.mux(packet)

    def lines(path):
        with av.open(str(path)) as file:
            return [(packet.pts, bytes(packet)) for packet in file.demux(subtitles=0) if packet.size]

    assert upscale(tmp_path / "a.mkv", tmp_path / "b.mkv").left_out == ()
    assert lines(tmp_path / "b.mkv") == lines(tmp_path / "a.mkv") != []
    assert len(upscale(tmp_path / "a.mkv", tmp_path / "b.mp4").left_out) == 1


def test_frames_are_those_of_the_upscaler(tmp_path, monkeypatch):
    torch.manual_seed(0)
    upscaler, frames = Upscaler(IMDN_RTC(num_feat=4, num_block=1)), []
    encode = video.from_rgb
    monkeypatch.setattr(video, "from_rgb", lambda pixels, info: frames.append(pixels) or encode(pixels, info))
    source = make_clip(tmp_path / "a.mp4", UNEVEN[:5])
    upscale(source, tmp_path / "b.mp4", upscaler)
    with av.open(str(source)) as file:
        # The matrix and range are BT.709 and limited, which is what it takes for this by itself.
        expected = [upscaler(frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    assert len(frames) == len(expected) == 5
    for ours, theirs in zip(frames, expected, strict=True):
        assert np.abs(ours.astype(int) - theirs).max() <= 2  # by another interpolation of colours


class Counted:
    """Enlarges, and ends as it is told to at one of the frames."""

    def __init__(self, last=None, end=None):
        self.calls, self.last, self.end = 0, last, end

    def __call__(self, picture):
        self.calls += 1
        if self.calls == self.last:
            self.end()
        return twice(picture)


def interrupt():
    raise KeyboardInterrupt


def killed(*arguments):
    """Do it in a process that is killed while it does."""
    process = multiprocessing.get_context("fork").Process(target=upscale, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.usefixtures("parts_of_four")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork")
@pytest.mark.parametrize(("last", "left"), [(1, 12), (6, 8), (11, 4)])
def test_a_killed_run_goes_on_where_a_part_began(tmp_path, last, left):
    source = make_clip(tmp_path / "a.mp4", sound=True)
    upscale(source, tmp_path / "whole.mp4")
    killed(source, tmp_path / "b.mp4", Counted(last, lambda: os.kill(os.getpid(), signal.SIGKILL)))
    assert not (tmp_path / "b.mp4").exists()
    rest = Counted()
    upscale(source, tmp_path / "b.mp4", rest)
    assert rest.calls == left
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4", "whole.mp4"]


@pytest.mark.usefixtures("parts_of_four")
@pytest.mark.parametrize("change", ["settings", "source"])
def test_parts_of_another_source_or_with_other_settings_are_not_used(tmp_path, change):
    source = make_clip(tmp_path / "a.mp4")
    with pytest.raises(KeyboardInterrupt):
        upscale(source, tmp_path / "b.mp4", Counted(10, interrupt))
    if change == "source":
        make_clip(source, UNEVEN[:10])
    rest = Counted()
    upscale(source, tmp_path / "b.mp4", rest, settings={"model": "another"} if change == "settings" else {})
    assert rest.calls == (10 if change == "source" else 12)


def test_few_frames_are_in_memory_at_a_time(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "a.mp4", range(0, 15000, 100))
    decode, read, counted = video.decode_video, [], Counted()

    def decoded(*arguments, **keywords):
        for frame in decode(*arguments, **keywords):
            read.append(len(read) + 1 - counted.calls)
            yield frame

    monkeypatch.setattr(video, "decode_video", decoded)
    upscale(source, tmp_path / "b.mp4", counted, workers=2)
    assert len(read) == 150
    assert max(read) <= 5


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_ends_the_run_and_leaves_nothing_in_the_place_of_the_result(tmp_path, workers):
    source = make_clip(tmp_path / "a.mp4")

    def fail(picture):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        upscale(source, tmp_path / "b.mp4", fail, workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_two_runs_do_not_make_one_file(tmp_path):
    source = make_clip(tmp_path / "a.mp4", (0, 3600))

    def again(picture):
        with refused("video.in-use"):
            upscale(source, tmp_path / "b.mp4")
        return twice(picture)

    upscale(source, tmp_path / "b.mp4", again)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("b.mp4", "b.mp4"),
        ("out", "out/a.mkv"),
        ("out.d/", "out.d/a.mkv"),
        ("b.png", "image.unwritable-format"),
        ("b.webm", "image.unwritable-format"),
        ("a.webm", "image.unwritable-format"),
        ("c.mkv", "output.is-input"),
    ],
)
def test_what_the_output_means(tmp_path, monkeypatch, output, expected):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / ("c.mkv" if output == "c.mkv" else "a.webm")
    if "." in expected.partition("/")[2] or expected == output:
        assert str(video_target(source, output)) == expected
    else:
        with refused(expected):
            video_target(source, output)


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "student.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1)))
    return tmp_path / "student.safetensors"


def test_the_command_line_upscales_a_clip(capfd, tmp_path, model):
    source, target = make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    command = ("upscale", source, "-o", target, "-m", model)
    result = run(capfd, *command, "--json")
    assert result.code == 0
    report = json.loads(result.out)
    assert report["megapixels_per_second"] > 0
    assert (report["status"], report["frames"], report["width"], report["left_out"]) == ("done", 12, 64, [])
    before = target.read_bytes()
    assert run(capfd, *command).code == 2
    assert run(capfd, *command, "--skip-existing") == (0, f"{target}: exists already, skipped\n", "")
    assert target.read_bytes() == before
    again = run(capfd, *command, "--overwrite")
    assert (again.code, again.out.count("\n"), ", 12 frames, by student in torch, " in again.out) == (0, 1, True)
    assert target.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("a.mp4", "a.mp4", "-o", "out"),
        ("a.mp4", "-o", "out.mp4", "--quality", "90"),
        ("a.mp4", "-o", "out.mp4", "--format", "mkv"),
        ("a.mp4", "-o", "out.mp4", "--scale", "1.3"),
        ("a.mp4", "-o", "out.png"),
        ("gone.mp4", "-o", "out.mp4"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(capfd, tmp_path, model, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "a.mp4", (0, 3600), size=(22, 24))
    result = run(capfd, "upscale", *arguments, "-m", model)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert not list(tmp_path.glob("*out*"))


def test_without_pyav_one_line_says_what_to_install(capfd, tmp_path, model, monkeypatch):
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    result = run(capfd, "upscale", make_clip(tmp_path / "a.mp4"), "-o", tmp_path / "b.mp4", "-m", model)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "[video]" in result.err
