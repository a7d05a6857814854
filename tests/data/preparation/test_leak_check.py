from __future__ import annotations

import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image, ImageEnhance

from imdn_kd.data.preparation.leak_check import BenchmarkIndex
from imdn_kd.image.rgb import RgbImage
from tests.fake_set import picture
from tests.refused import refused
from tests.shared_data import SHARED, needs_shared, read_rgb

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Photos")
    (folder / "HR").mkdir()
    for name in PHOTOGRAPHS:
        Image.fromarray(getattr(skimage.data, name)()).save(folder / "HR" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def benchmarks(folder: Path) -> BenchmarkIndex:
    return BenchmarkIndex([folder])


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    return image.crop((int(left * width), int(top * height), int((1 - right) * width), int((1 - bottom) * height)))


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


COPIES = {
    "same": lambda image: image,
    "JPEG 30": lambda image: jpeg(image, 30),
    "JPEG 90": lambda image: jpeg(image, 90),
    "half size": lambda image: resized(image, 0.5),
    "twice the size": lambda image: resized(image, 2),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "cut all around": lambda image: cut(image, 0.05, 0.05, 0.05, 0.05),
    "cut a little": lambda image: cut(image, 0.02, 0.03, 0.02, 0.03),
    "cut at a corner": lambda image: cut(image, 0, 0.05, 0.05, 0),
    "all of it": lambda image: jpeg(
        resized(cut(image, 0.01, 0.04, 0.05, 0.02).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0.5), 50
    ),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_copies_are_found(folder, benchmarks, name, copy):
    image = Image.fromarray(getattr(skimage.data, name)())
    assert benchmarks.match(np.asarray(COPIES[copy](image))) == f"{folder.name}/{name}.png"


def strangers() -> list[RgbImage]:
    flat = np.full((90, 120, 3), 200, np.uint8)
    slope = np.broadcast_to(np.linspace(0, 255, 256).astype(np.uint8)[:, None], (256, 256, 3))
    noise = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    photographs = [getattr(skimage.data, name)() for name in ("retina", "hubble_deep_field", "immunohistochemistry")]
    grey = [np.dstack([getattr(skimage.data, name)()] * 3) for name in ("camera", "coins", "moon", "page")]
    tiny = [np.zeros((1, 1, 3), np.uint8), noise[:3, :100], noise[:100, :1]]
    return [flat, slope, noise, picture((64, 64)), *photographs, *grey, *tiny]


def test_other_images_are_not_found(benchmarks):
    assert [benchmarks.match(pixels) for pixels in strangers()] == [None] * len(strangers())


def test_a_piece_is_not_found(benchmarks):
    assert benchmarks.match(skimage.data.astronaut()[:256, :256]) is None


def test_labels(folder, benchmarks, monkeypatch):
    monkeypatch.chdir(folder)
    labels = tuple(f"{folder.name}/{name}.png" for name in PHOTOGRAPHS)
    assert benchmarks.labels == BenchmarkIndex([folder / "HR"]).labels == BenchmarkIndex(["."]).labels == labels


def test_only_the_originals_of_a_folder_count(folder):
    lr = folder / "LRbicx2"
    lr.mkdir(exist_ok=True)
    Image.fromarray(picture((20, 20))).save(lr / "a.png")
    assert len(BenchmarkIndex([folder]).labels) == len(PHOTOGRAPHS)


def test_the_nearest_of_two_alike_is_named(tmp_path):
    pixels = skimage.data.chelsea()
    for name, image in (("a", pixels[8:]), ("b", pixels)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    assert BenchmarkIndex([tmp_path]).match(pixels) == f"{tmp_path.name}/b.png"


def test_nothing_to_compare_with(tmp_path):
    assert BenchmarkIndex([]).match(picture((40, 40))) is None
    with refused("data.no-images"):
        BenchmarkIndex([tmp_path])
    with refused("image.not-a-folder"):
        BenchmarkIndex([tmp_path / "gone"])


def test_a_damaged_benchmark_image(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with refused("image.unknown-format"):
        BenchmarkIndex([tmp_path])


@pytest.mark.processes
def test_torch_is_not_needed(folder):
    modules = ("sources.scan", "sources.locations", "sources.download", "leak_check")
    code = (
        f"import sys, {', '.join(f'imdn_kd.data.preparation.{name}' for name in modules)}\n"
        f"imdn_kd.data.preparation.leak_check.BenchmarkIndex([{str(folder)!r}])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_shared
def test_published_benchmarks_and_training_images():
    benchmarks = BenchmarkIndex(
        [SHARED / "benchmark" / "Set5", SHARED / "benchmark" / "Set14", SHARED / "val" / "kodak24"]
    )
    assert len(benchmarks.labels) == 43
    # Set14 has the picture of Set5 under another name.
    lr = SHARED / "benchmark" / "Set5" / "LRbicx4"
    found = [benchmarks.match(read_rgb(path)) for path in sorted(lr.iterdir())]
    assert [label.partition("/")[2] for label in found] in (
        ["baby.png", "bird.png", "butterfly.png", "head.png", "woman.png"],
        ["baby.png", "bird.png", "butterfly.png", "face.png", "woman.png"],
    )
    training = sorted((SHARED / "train").rglob("*.[jpw]*"))[::8]
    assert len(training) > 90
    assert [path.name for path in training if benchmarks.match(read_rgb(path))] == []
