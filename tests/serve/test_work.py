"""The work of a request: the same bytes as the command, and what is refused before anything is decoded."""

import threading

import numpy as np
import pytest
from PIL import Image

from imdn_kd.archs import IMDN
from imdn_kd.image.frames import picture_sizes, read_frames
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.serve.limits import Limits
from imdn_kd.serve.models import BEST, FAST, Models
from imdn_kd.serve.work import Task, UpscaleRequest
from tests.cli.run import run
from tests.refused import refused
from tests.serve.pictures import png_header

GOOD = ("clear.webp", "deep.png", "dot.png", "film.gif", "grey.tif", "pages.tif", "palette.png")
GOOD = (*GOOD, "photo.jpg", "print.jpg", "strip.bmp")
BOMBS = ("bomb.jpg", "bomb.png", "deep.tif", "film.gif", "pages.tif")


@pytest.fixture(scope="module")
def models():
    return Models(engine="torch")


def do(task, **options):
    return task.do(threading.Event(), **options)


@pytest.mark.parametrize("name", GOOD)
def test_the_file_is_that_of_the_command(pictures, models, tmp_path, capfd, name):
    parts, firsts = [], []
    task = Task(pictures[name], tmp_path / "served", UpscaleRequest(), models, Limits())
    made = do(task, on_progress=parts.append, on_first=lambda *pair: firsts.append(pair))
    run(capfd, "upscale", pictures[name], "-o", tmp_path / "told", "--engine", "torch")
    (told,) = (tmp_path / "told").iterdir()
    assert made.path.read_bytes() == told.read_bytes()
    assert made.path.name == f"{told.stem}_x4{told.suffix}"
    assert parts[-1] == pytest.approx(1)
    assert parts == sorted(parts)
    assert [large.pixels.shape[:2] for _, large in firsts] == [made.size]
    assert made.memory > 2**20
    assert len([*(tmp_path / "served").iterdir()]) == 1


@pytest.mark.parametrize(
    ("asked", "options", "label"),
    [
        (UpscaleRequest(scale=2.7), ("--scale", 2.7), "x2.7.jpg"),
        (UpscaleRequest(FAST, scale=3, format="png"), ("--fast", "--scale", 3, "--format", "png"), "x3.png"),
        (UpscaleRequest("imdn_rtc_x2"), ("--model", "imdn_rtc_x2"), "x2.jpg"),
        (UpscaleRequest("plain_m_denoise"), ("--model", "plain_m_denoise"), "x1.jpg"),
        (UpscaleRequest(size=(50, 40)), ("--size", "40x50"), "40x50.jpg"),
        (UpscaleRequest(BEST, fit=(50, 40), format=".WEBP"), ("--fit", "40x50", "--format", "webp"), "40x50.webp"),
    ],
)
def test_requests_are_the_options_of_the_command(pictures, models, tmp_path, capfd, asked, options, label):
    made = do(Task(pictures["photo.jpg"], tmp_path / "served", asked, models, Limits()))
    run(capfd, "upscale", pictures["photo.jpg"], "-o", tmp_path / "told", "--engine", "torch", *options)
    (told,) = (tmp_path / "told").iterdir()
    assert made.path.read_bytes() == told.read_bytes()
    assert made.path.name == f"photo_{label}"
    with Image.open(made.path) as image:
        assert image.size == made.size[::-1]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_what_their_headers_say(large, models, tmp_path, name):
    with refused("serve.too-many-pixels") as caught:
        Task(large[name], tmp_path / "served", UpscaleRequest(), models, Limits())
    assert str(caught.value).startswith(f"{name}: has ")
    assert not (tmp_path / "served").exists()


@pytest.mark.parametrize("name", GOOD)
def test_headers_say_the_sizes_of_all_pictures(pictures, name):
    sizes = [(frame.picture.height, frame.picture.width) for frame in read_frames(pictures[name]).pictures]
    assert picture_sizes(pictures[name]) == sizes


@pytest.mark.parametrize(
    ("name", "asked", "most"),
    [
        ("photo.jpg", UpscaleRequest(scale=4), 80 * 124),
        ("photo.jpg", UpscaleRequest("plain_m_x4", scale=1.5), 80 * 124),  # x4, then smaller
        ("photo.jpg", UpscaleRequest(size=(100, 200)), 160 * 248),  # x4, x2, then smaller
        ("photo.jpg", UpscaleRequest(size=(7, 7)), 20 * 31),
        ("film.gif", UpscaleRequest(scale=2), 3 * 18 * 24),
        ("pages.tif", UpscaleRequest(scale=2), 18 * 24 + 8 * 10),
    ],
)
def test_the_limit_counts_pictures_and_results_and_what_comes_between(pictures, models, tmp_path, name, asked, most):
    Task(pictures[name], tmp_path, asked, models, Limits(pixels=most))
    with refused("serve.too-many-pixels"):
        Task(pictures[name], tmp_path, asked, models, Limits(pixels=most - 1))


def test_what_is_no_picture_is_named_without_folders(pictures, models, tmp_path):
    cut = pictures["photo.jpg"].read_bytes()
    files = {
        "text.png": (b"no picture", "image.unknown-format"),
        "empty.jpg": (b"", "image.empty"),
        "cut.jpg": (cut[: len(cut) // 2], "image.damaged"),
        "half.png": (png_header(20, 20), "image.damaged"),
    }
    for name, (data, code) in files.items():
        path = tmp_path / "deep" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        with refused(code) as caught:
            do(Task(path, tmp_path / "served", UpscaleRequest(), models, Limits()))
        assert str(caught.value).startswith(f"{name}: ")
        assert "/" not in str(caught.value)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (UpscaleRequest("no such"), "serve.no-model"),
        (UpscaleRequest(scale=0.5), "size.impossible"),
        (UpscaleRequest(scale=float("nan")), "size.impossible"),
        (UpscaleRequest(scale=1e308), "size.too-large"),
        (UpscaleRequest(scale=2, size=(3, 3)), "size.impossible"),
        (UpscaleRequest(size=(0, 3)), "size.impossible"),
        (UpscaleRequest(format="exe"), "image.unwritable-format"),
    ],
)
def test_impossible_requests_are_refused(pictures, models, tmp_path, asked, code):
    with refused(code):
        Task(pictures["photo.jpg"], tmp_path, asked, models, Limits())


def test_uploads_may_be_too_long(pictures, models, tmp_path):
    with refused("serve.too-many-bytes"):
        Task(pictures["photo.jpg"], tmp_path, UpscaleRequest(), models, Limits(upload=100))


def test_stopped_work_ends_at_the_next_part_and_leaves_nothing(pictures, models, tmp_path):
    stop, parts = threading.Event(), []

    def on_progress(part):
        parts.append(part)
        stop.set()

    with refused("serve.stopped"):
        Task(pictures["film.gif"], tmp_path / "served", UpscaleRequest(), models, Limits()).do(stop, on_progress)
    assert len(parts) == 1
    assert not [*tmp_path.rglob("*.*")]


def test_unexpected_errors_are_not_told_to_clients(pictures, models, tmp_path, caplog):
    task = Task(pictures["photo.jpg"], tmp_path, UpscaleRequest(), models, Limits())

    def fail(*_):
        raise KeyError("/secret/place")

    with refused("unexpected") as caught:
        do(task, on_first=fail)
    assert "secret" not in str(caught.value)
    assert "/secret/place" in caplog.text


def test_models_have_names_of_their_own():
    files = [ModelFile(IMDN(num_feat=8, num_block=1, upscale=3), name=name) for name in ("mine", "mine", "imdn_rtc_x2")]
    found = Models(files, engine="torch")
    assert found.default == "mine"
    assert {name: found.scales[name] for name in ("mine", "mine*", "imdn_rtc_x2*", "imdn_rtc_x2", FAST)} == {
        **dict.fromkeys(("mine", "mine*", "imdn_rtc_x2*"), 3),
        **{"imdn_rtc_x2": 2, FAST: 4},
    }
    assert found.upscaler("mine").scale == 3
    assert found.upscaler("mine") is found.upscaler("mine")
    assert found.upscaler("mine*") is not found.upscaler("mine")
    assert np.all([found.upscaler(name).scale == scale for name, scale in found.scales.items()])
