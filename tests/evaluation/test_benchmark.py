from __future__ import annotations

import json
import math
from functools import cache

import numpy as np
import pytest
from PIL import Image

from imdn_kd import zoo
from imdn_kd.archs.imdn import IMDN_AS, IMDN_RTC
from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import (
    EvalTask,
    SetScore,
    Upsampler,
    benchmark,
    bicubic,
    make_upsampler,
    open_upsamplers,
    plan_tasks,
    score,
)
from imdn_kd.evaluation.metrics import psnr, ssim
from imdn_kd.evaluation.protocol import PROTOCOLS
from imdn_kd.evaluation.report import report_scores
from imdn_kd.image.io import read_image
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from tests.fake_set import NAMES, make_set
from tests.official import FILES, FOLDER
from tests.refused import refused
from tests.shared_data import SHARED, needs_shared, set5_pairs

MEASURED = {
    ("IMDN_x2", "Set5"): (37.9960, 0.96049),
    ("IMDN_x3", "Set5"): (34.3597, 0.92698),
    ("IMDN_x4", "Set5"): (32.2096, 0.89476),
    ("IMDN_x2", "Set14"): (33.6266, 0.91773),
    ("IMDN_x3", "Set14"): (30.3216, 0.84165),
    ("IMDN_x4", "Set14"): (28.5820, 0.78109),
    ("IMDN_RTC", "Set5"): (37.3114, 0.95834),
    ("IMDN_RTC", "Set14"): (32.9698, 0.91303),
}
"""PSNR and SSIM of the released checkpoints, measured by other code; they round to the figures of the paper."""


@cache
def official_upsampler(model: str) -> Upsampler:
    return open_upsamplers([FOLDER / FILES[model]], device="cpu")[0]


@cache
def official_score(model: str, data: str) -> SetScore:
    source = SHARED / "benchmark" / data
    return benchmark([official_upsampler(model)], [source], explain=(model, data) == ("IMDN_x4", "Set5"))[0]


@pytest.mark.slow
@needs_shared
@pytest.mark.parametrize(("model", "data"), MEASURED)
def test_published_figures(model, data):
    found, (psnr_wanted, ssim_wanted) = official_score(model, data), MEASURED[model, data]
    assert len(found.images) == (5 if data == "Set5" else 14)
    assert found.psnr == pytest.approx(psnr_wanted, abs=0.002)
    assert found.ssim == pytest.approx(ssim_wanted, abs=0.0001)
    scale = official_upsampler(model).scale
    assert found.lr_source == (f"LRbicx{scale} (files)" if data == "Set5" else "MATLAB bicubic")


@pytest.mark.slow
@needs_shared
def test_habits_move_the_figures_as_measured():
    """The figures by other code, to the digits given."""
    alternatives = {other.name: other for other in official_score("IMDN_x4", "Set5").alternatives}
    assert alternatives.keys() == PROTOCOLS.keys() - {"standard"}
    wanted = {"y-rounded": 32.187, "no-shave": 32.106, "y-swapped": 32.321, "y-pillow": 30.875, "rgb": 30.300}
    for name, figure in wanted.items():
        assert alternatives[name].psnr == pytest.approx(figure, abs=0.001)
    assert alternatives["ssim-7x7"].ssim == pytest.approx(0.9043, abs=0.0001)


@needs_shared
def test_made_lr_scores_as_published_lr(tmp_path):
    (tmp_path / "plain").symlink_to(SHARED / "benchmark" / "Set5" / "HR")
    files, made = benchmark([bicubic(4)], [SHARED / "benchmark" / "Set5", tmp_path / "plain"])
    assert files.lr_source != made.lr_source
    assert [(image.psnr, image.ssim) for image in files.images] == [(image.psnr, image.ssim) for image in made.images]
    # The bicubic column of tables, which was measured on rounded Y.
    assert files.psnr == pytest.approx(28.42, abs=0.015)
    assert files.ssim == pytest.approx(0.8104, abs=0.001)


@needs_shared
def test_one_grey_image_moves_the_mean_of_set14_by_nine_hundredths():
    """`bridge` has one channel; `man` is grey, too, but has three."""
    (found,) = benchmark([bicubic(4)], [SHARED / "benchmark" / "Set14"], explain=True)
    other = next(other for other in found.alternatives if other.name == "y-grey")
    assert found.psnr - other.psnr == pytest.approx(20 * math.log10(255 / 219) / 14, abs=1e-4)
    assert other.psnr == pytest.approx(26.00, abs=0.01)  # the bicubic column of the tables of SRCNN and VDSR


def small_network() -> IMDN_RTC:
    return IMDN_RTC(num_feat=4, num_block=1, upscale=2)


def test_figures_are_those_of_the_metrics(tmp_path):
    make_set(tmp_path / "tiny")
    network = Upscaler(small_network(), device="cpu")
    model = make_upsampler(network, "tiny")
    found = benchmark([model], [tmp_path / "tiny"], explain=True)[0]
    images = plan_tasks([model], [tmp_path / "tiny"])[0].images
    pairs = [images.load(pair) for pair in images.pairs]
    figures = [(psnr(network(lr), hr, 2), ssim(network(lr), hr, 2)) for hr, lr in pairs]
    assert [(image.psnr, image.ssim) for image in found.images] == figures
    assert (found.psnr, found.ssim) == pytest.approx(tuple(np.mean(figures, 0)))
    rgb = next(other for other in found.alternatives if other.name == "rgb")
    assert rgb.psnr == pytest.approx(np.mean([psnr(network(lr), hr, 2, PROTOCOLS["rgb"]) for hr, lr in pairs]))
    assert (found.model, found.data, found.run) == ("tiny", "tiny", "float32 on cpu")
    assert all(image.seconds > 0 for image in found.images)


def test_perfect_results_score_infinitely(tmp_path):
    folder = make_set(tmp_path / "tiny")
    originals = iter([read_image(folder / "HR" / f"{name}.png").pixels[:36, :40] for name in (NAMES[0], *NAMES)])
    scores = benchmark([Upsampler("oracle", 2, lambda _: next(originals))], [folder])
    assert scores[0].psnr == float("inf")
    assert scores[0].ssim == pytest.approx(1)
    assert json.loads(report_scores(scores).json())["scores"][0]["psnr"] is None


def test_results_are_kept(tmp_path):
    make_set(tmp_path / "tiny")
    model = Upsampler("a/b c", 2, bicubic(2).enlarge)
    for _ in range(2):
        benchmark([model], [tmp_path / "tiny"], save=tmp_path / "kept")
    kept = sorted(path.relative_to(tmp_path / "kept").as_posix() for path in (tmp_path / "kept").rglob("*.*"))
    assert kept == ["x2/tiny/baby_a_b_c.png", "x2/tiny/bird_a_b_c.png"]
    with Image.open(tmp_path / "kept" / kept[0]) as image:
        assert image.size == (40, 36)


def test_several_models_scales_and_sets(tmp_path):
    for name in ("A", "B"):
        make_set(tmp_path / name, lr="LRbicx2")
    save_model(tmp_path / "two.safetensors", ModelFile(small_network()))
    save_model(tmp_path / "three.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=3)))
    models = open_upsamplers(["bicubic", tmp_path / "two.safetensors", tmp_path / "three.safetensors"], device="cpu")
    scores = benchmark(models, ["A", tmp_path / "B"], root=tmp_path)
    assert [(one.model, one.scale, one.data) for one in scores] == [
        (model, scale, data)
        for model, scale in (("bicubic", 2), ("bicubic", 3), ("two", 2), ("three", 3))
        for data in ("A", "B")
    ]
    assert [one.lr_source for one in scores[:4]] == ["LRbicx2 (files)"] * 2 + ["MATLAB bicubic"] * 2


def test_names_and_factors(tmp_path):
    for folder in ("a", "b"):
        save_model(tmp_path / folder / "net.safetensors", ModelFile(small_network()))
    save_model(tmp_path / "as.safetensors", ModelFile(IMDN_AS(num_feat=8, num_block=1)))
    paths = [tmp_path / "a" / "net.safetensors", tmp_path / "b" / "net.safetensors"]
    assert [one.name for one in open_upsamplers(paths, device="cpu")] == list(map(str, paths))
    (other,) = open_upsamplers(paths[:1], scale=3, device="cpu", self_ensemble=True)
    assert (other.name, other.scale) == ("net (x2 network) (self-ensemble)", 3)
    (any_factor,) = open_upsamplers([tmp_path / "as.safetensors"], scale=3, device="cpu")
    assert (any_factor.name, any_factor.scale) == ("as", 3)
    assert any_factor.enlarge(np.zeros((5, 6, 3), np.uint8)).shape == (15, 18, 3)


def test_without_models_the_zoo_is_scored(tmp_path, monkeypatch):
    save_model(tmp_path / "s2.safetensors", ModelFile(small_network()))
    students = [zoo.Student("small-x2", "s2.safetensors", 2)]
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    monkeypatch.setattr(zoo, "students", lambda: students)
    assert [(one.name, one.scale) for one in open_upsamplers(device="cpu")] == [("small-x2", 2)]
    assert [one.name for one in open_upsamplers(scale=2, device="cpu")] == ["small-x2"]
    with refused("zoo.no-student"):
        open_upsamplers(scale=3)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda folder: plan_tasks([], [folder]), "benchmark.nothing-to-do"),
        (lambda folder: plan_tasks([bicubic(2)], []), "benchmark.nothing-to-do"),
        (lambda folder: bicubic(0), "benchmark.scale"),
        (lambda folder: open_upsamplers(["bicubic"]), "benchmark.scale"),
        (lambda _: make_upsampler(Upscaler(IMDN_AS(num_feat=8, num_block=1), device="cpu"), "as"), "benchmark.scale"),
        (lambda folder: benchmark([bicubic(2)], [folder / "small"]), "image.too-small"),
    ],
)
def test_errors(tmp_path, call, code):
    make_set(tmp_path / "small", size=(12, 40))
    with refused(code):
        call(tmp_path)


def test_sizes_are_checked_before_anything_runs(tmp_path):
    make_set(tmp_path / "good")
    make_set(tmp_path / "bad", lr="LRbicx3", lr_suffix="x3.png", scale=2)
    with refused("data.lr-size"):
        plan_tasks([bicubic(3)], [tmp_path / "good", tmp_path / "bad"])


def test_report(tmp_path):
    make_set(tmp_path / "a|b")
    tasks = plan_tasks([bicubic(2)], [tmp_path / "a|b"])
    seen: list[int] = []
    report = report_scores([score(task, explain=True, on_image=seen.append) for task in tasks])
    assert seen == [36 * 40] * 2
    text = report.markdown()
    assert "| bicubic | x2 | a\\|b | 2 |" in text
    assert PROTOCOLS["standard"].describe() in text
    for other in PROTOCOLS.keys() - {"standard"}:
        assert f"| {other} |" in text
    data = json.loads(report.json())
    assert [image["name"] for image in data["scores"][0]["images"]] == list(NAMES)
    assert data["protocol"]["description"] == PROTOCOLS["standard"].describe()


@needs_shared
def test_pairs_are_those_of_the_other_reader():
    images = plan_tasks([bicubic(3)], [SHARED / "benchmark" / "Set5"])[0].images
    for pair, (hr, lr) in zip(images.pairs, set5_pairs(3), strict=True):
        found_hr, found_lr = images.load(pair)
        assert np.array_equal(found_hr, hr)
        assert np.array_equal(found_lr, lr)


def test_an_error_while_upscaling_names_the_picture(tmp_path):
    def fail(lr):
        raise InputError("not enough memory", code="memory.exhausted")

    images = find_set(make_set(tmp_path / "set"), 2)
    with refused("memory.exhausted") as caught:
        score(EvalTask(Upsampler("model", 2, fail), images))
    assert caught.value.lines == (f"{images.pairs[0].hr}: not enough memory",)
