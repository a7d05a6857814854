"""Scale 1: denoising, deblurring, JPEG artefacts; against Pillow, scikit-image and scipy."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from imdn_kd.archs.imdn import IMDN_AS, IMDN_RTC
from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.evaluation.benchmark import benchmark, bicubic, make_upsampler, open_upsamplers, plan_tasks, score
from imdn_kd.evaluation.report import report_scores
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.inference.upscaler import Upscaler
from tests.refused import refused

PHOTO = data.astronaut()[50:181, 100:263]  # odd sides
GREY = np.array(Image.fromarray(PHOTO).convert("L"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A colour photograph and a grey one, each a set of its own."""
    root = tmp_path_factory.mktemp("sets")
    write_image(root / "colour" / "photo.png", Picture(PHOTO))
    write_image(root / "grey" / "photo.png", Picture(GREY))
    return root


def source(folder, steps, **more):
    return DataSource(folder, steps=parse_steps(steps), **more)


def jpeg(pixels, quality):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.array(Image.open(buffer))


def the_score(data_source):
    (found,) = benchmark([bicubic(1)], [data_source])
    return found


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_denoising_is_measured_on_rgb_to_the_last_pixel(folder, sigma):
    images = find_set(source(folder / "colour", f"noise={sigma}"), 1)
    hr, noisy = images.load(images.pairs[0])
    np.testing.assert_array_equal(hr, PHOTO)
    found = the_score(source(folder / "colour", f"noise={sigma}"))
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(PHOTO, noisy))
    windows = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 2}
    assert found.ssim == pytest.approx(structural_similarity(PHOTO, noisy, **windows))
    # White noise of that deviation, but for what clipping to 0..255 takes away.
    assert found.psnr == pytest.approx(20 * np.log10(255 / sigma), abs=0.1 + sigma / 50)
    assert (found.model, found.lr_source) == ("input", f"noise sigma {sigma}")


@pytest.mark.parametrize("quality", [10, 20, 30, 40])
def test_jpeg_is_measured_on_y(folder, quality):
    found = the_score(source(folder / "colour", f"jpeg={quality}"))
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = (jpeg(PHOTO, quality) @ weights) - (PHOTO @ weights)
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)))


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_jpeg_of_grey_images_as_in_the_tables_of_classic5_and_live1(folder, kind):
    found = the_score(source(folder / kind, "jpeg=10", grey=True))
    y = np.round(PHOTO.astype(np.longdouble) @ np.array([65481, 128553, 24966]) / 255000 + 16).astype(np.uint8)
    clean = GREY if kind == "grey" else y
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(clean, jpeg(clean, 10)))
    assert found.protocol.describe(1).startswith("PSNR and SSIM on the levels of grey images, 0 px cut")


def test_noise_is_the_same_each_time_and_another_for_each_image(folder, tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", Picture(PHOTO))
    images = find_set(source(tmp_path, "noise=25"), 1)
    first, second = (images.load(pair)[1] for pair in images.pairs)
    np.testing.assert_array_equal(images.load(images.pairs[0])[1], first)
    assert (first != second).mean() > 0.9


def test_files_by_prepare_are_the_inputs_that_benchmark_makes(folder, tmp_path):
    options = PrepareOptions(
        source="folder",
        path=str(folder / "colour"),
        format="folder",
        scale=[1.0],
        degradation=[{"type": "noise", "sigma": 25.0}],
        output=str(tmp_path / "set"),
    )
    write_dataset(options, open_source(options, root=tmp_path), root=tmp_path)
    made, given = (
        find_set(each, 1)
        for each in (source(folder / "colour", "noise=25"), DataSource(tmp_path / "set", tmp_path / "set" / "LRx1"))
    )
    np.testing.assert_array_equal(made.load(made.pairs[0])[1], given.load(given.pairs[0])[1])
    assert given.lr_source == "LRx1 (files)"


@pytest.mark.parametrize(
    ("clean", "inputs"),
    [
        *(("clean", "noisy"), ("target", "input"), ("gt", "lq"), ("sharp", "blur"), ("original_png", "noisy25")),
        *(("GT", "input"), ("high", "low"), ("HR", "LRx1"), ("", "noisy")),
    ],
)
@pytest.mark.parametrize("named", ["set", "clean"])
def test_inputs_are_found_where_published_sets_have_them(tmp_path, clean, inputs, named):
    noisy = 255 - PHOTO
    write_image(tmp_path / "set" / clean / "a.png", Picture(PHOTO))
    write_image(tmp_path / "set" / inputs / ("ax1.png" if inputs == "LRx1" else "a.png"), Picture(noisy))
    images = find_set(tmp_path / "set" / clean if named == "clean" else tmp_path / "set", 1)
    for found, expected in zip(images.load(images.pairs[0]), (PHOTO, noisy), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert images.lr_source == f"{inputs} (files)"
    assert len(images.pairs) == 1


def test_of_several_folders_of_inputs_one_is_to_be_named(tmp_path):
    for name in ("original_png", "noisy15", "noisy25"):
        write_image(tmp_path / name / "a.png", Picture(PHOTO))
    with refused("data.several-inputs"):
        find_set(tmp_path, 1)
    assert find_set(DataSource(tmp_path, tmp_path / "noisy15"), 1).lr_source == "noisy15 (files)"


def test_one_table_of_several_degradations_says_what_was_measured_on_what(folder, tmp_path):
    sets = [source(folder / "colour", steps) for steps in ("noise=25", "jpeg=10")]
    scores = [score(task, explain=True, save=tmp_path) for task in plan_tasks([bicubic(1)], sets)]
    text = report_scores(scores).markdown()
    assert "| Inputs |" in text
    assert "Protocol of colour (noise sigma 25): PSNR and SSIM on RGB, 0 px cut from each border" in text
    assert "Protocol of colour (JPEG quality 10): PSNR and SSIM on Y (BT.601, 16-235, not rounded), 0 px" in text
    assert [other.name for other in scores[0].alternatives] == [
        "y",
        "y-rounded",
        "y-swapped",
        "y-pillow",
        "y-grey",
        "ssim-7x7",
    ]
    kept = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    assert kept == [f"x1/colour_{each}/photo_input.png" for each in ("JPEG_quality_10", "noise_sigma_25")]


def test_images_that_are_enlarged_can_be_degraded_too(folder):
    images = find_set(source(folder / "colour", "bicubic+noise=10"), 2)
    hr, lr = images.load(images.pairs[0])
    clean = find_set(folder / "colour", 2)
    noise = lr.astype(float) - clean.load(clean.pairs[0])[1]
    assert (hr.shape, lr.shape) == ((130, 162, 3), (65, 81, 3))
    assert noise.std() == pytest.approx(10, rel=0.1)


def test_a_network_that_restores_sees_the_image_as_it_is():
    """Enlarged beforehand, noise is no longer the noise that the network knows."""
    upscaler = Upscaler(IMDN_RTC(num_feat=4, num_block=1, upscale=1), device="cpu", precision="fp32")
    pixels = PHOTO[:40, :52].astype(np.float32) / 255
    restored = upscaler(pixels)
    assert restored.shape == pixels.shape
    np.testing.assert_array_equal(upscaler(pixels, 2), imresize(restored, size=(80, 104)))
    np.testing.assert_array_equal(upscaler(pixels, size=(20, 26)), imresize(restored, size=(20, 26)))
    assert (make_upsampler(upscaler, "it").scale, upscaler.restores) == (1, True)


def test_a_network_that_takes_enlarged_images_does_not_restore():
    any_factor = Upscaler(IMDN_AS(num_feat=8, num_block=1), device="cpu")
    assert not any_factor.restores
    with refused("benchmark.scale"):
        make_upsampler(any_factor, "as")


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda root: plan_tasks([bicubic(1)], [root / "colour"]), "data.no-inputs"),
        (lambda root: plan_tasks([bicubic(2)], [source(root / "colour", "noise=25")]), "degradation.steps"),
        (lambda root: open_upsamplers(["input"]), "benchmark.scale"),
        (lambda root: open_upsamplers(scale=1), "zoo.no-student"),
        (lambda root: make_upsampler(Upscaler(IMDN_RTC(num_feat=4, num_block=1)), "x2", 1), "benchmark.scale"),
        (lambda root: parse_steps("noise"), "degradation.syntax"),
        (lambda root: parse_steps("median=3"), "degradation.syntax"),
        (lambda root: parse_steps("bicubic=3"), "degradation.syntax"),
        (lambda root: parse_steps("real_esrgan=2"), "degradation.syntax"),
        (lambda root: parse_steps("noise=25+"), "degradation.syntax"),
        (lambda root: parse_steps("jpeg=0"), "options.quality"),
        (lambda root: parse_steps("noise=nan"), "options.out-of-range"),
        (lambda root: parse_steps("noise=300"), "options.range"),
    ],
)
def test_what_is_refused(folder, call, code):
    with refused(code):
        call(folder)


def test_a_model_file_of_scale_1_is_scored_beside_its_input(folder, tmp_path):
    save_model(tmp_path / "net.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=1)))
    models = open_upsamplers(["input", tmp_path / "net.safetensors"], device="cpu")
    scores = benchmark(models, [source(folder / "colour", "blur=1.6")])
    assert [(one.model, one.scale, one.lr_source) for one in scores] == [
        ("input", 1, "blur sigma 1.6"),
        ("net", 1, "blur sigma 1.6"),
    ]
