"""Kernels, noise and resizing against BasicSR's functions and against the moments of their distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from imdn_kd.config.options import check_options
from imdn_kd.data.degradation import pixels
from imdn_kd.data.degradation.kernels import blur_kernel, convolve, sinc_kernel
from imdn_kd.data.degradation.ranges import one_of
from imdn_kd.data.degradation.real_esrgan import real_esrgan
from imdn_kd.data.degradation.real_esrgan_schema import RealEsrgan
from tests.basicsr_compat import import_basicsr, needs_basicsr
from tests.refused import refused

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.random((31, 40, 3), np.float32)


@needs_basicsr
@pytest.mark.parametrize("size", [7, 21])
@pytest.mark.parametrize(("sigma_x", "sigma_y", "angle"), [(2.0, 2.0, 0.0), (0.4, 2.5, 0.7), (3.0, 1.0, -2.5)])
def test_kernels_are_those_of_basicsr(size, sigma_x, sigma_y, angle):
    theirs = import_basicsr("basicsr.data.degradations")
    given = size, sigma_x, sigma_y, angle
    np.testing.assert_allclose(
        blur_kernel("gaussian", *given), theirs.bivariate_Gaussian(*given, isotropic=False), atol=1e-12
    )
    for beta in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(
            blur_kernel("generalized", *given, beta),
            theirs.bivariate_generalized_Gaussian(*given, beta, isotropic=False),
            atol=1e-12,
        )
        np.testing.assert_allclose(
            blur_kernel("plateau", *given, beta), theirs.bivariate_plateau(*given, beta, isotropic=False), atol=1e-12
        )


@needs_basicsr
@pytest.mark.parametrize("cutoff", [math.pi / 5, 1.5, math.pi])
def test_the_sinc_filter_is_that_of_basicsr(cutoff):
    theirs = import_basicsr("basicsr.data.degradations")
    np.testing.assert_allclose(sinc_kernel(13, cutoff), theirs.circular_lowpass_kernel(cutoff, 13), atol=1e-12)


@needs_basicsr
def test_blurring_is_that_of_basicsr():
    theirs = import_basicsr("basicsr.utils.img_process_util")
    kernel = blur_kernel("gaussian", 9, 0.8, 2.5, 0.6)
    batch = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    expected = theirs.filter2D(batch, torch.from_numpy(kernel).float()[None])[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(convolve(IMAGE, kernel), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2)])
def test_images_smaller_than_the_kernel_are_blurred(size):
    flat = np.full((*size, 3), 0.25, np.float32)
    np.testing.assert_allclose(convolve(flat, blur_kernel("plateau", 21, 3, 2, 0.3)), flat, atol=1e-5)


def test_gaussian_noise_has_its_moments():
    flat = np.full((1000, 1000, 1), 0.5, np.float32)
    noise = pixels.gaussian_noise(flat, 0.1, RANDOM) - flat
    assert noise.mean() == pytest.approx(0, abs=5e-4)
    assert noise.std() == pytest.approx(0.1, rel=5e-3)
    assert (noise**4).mean() == pytest.approx(3 * 0.1**4, rel=0.02)
    grey = pixels.gaussian_noise(np.zeros((20, 20, 3), np.float32), 0.1, RANDOM, grey=True)
    np.testing.assert_array_equal(grey[..., 0], grey[..., 2])


@pytest.mark.parametrize("grey", [False, True])
def test_shot_noise_has_its_moments(grey):
    """Of an image with 200 levels white has 256 photons, so that level v has variance v / 256."""
    level = 102 / 255
    image = np.full((600, 600, 3), level, np.float32)
    image[0, :200] = np.linspace(0, 199, 200, dtype=np.float32)[:, None] / 255
    noise = (pixels.poisson_noise(image, 0.5, RANDOM, grey=grey) - image)[1:]
    assert noise.mean() == pytest.approx(0, abs=5e-4)
    assert noise.std() == pytest.approx(0.5 * math.sqrt(level / 256), rel=0.01)
    assert np.array_equal(noise[..., 0], noise[..., 1]) == grey


@needs_basicsr
@pytest.mark.parametrize("grey", [False, True])
def test_shot_noise_is_as_strong_as_in_basicsr(grey):
    theirs = import_basicsr("basicsr.data.degradations")
    torch.manual_seed(0)
    image = np.repeat(np.repeat(IMAGE, 8, 0), 8, 1)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    expected = theirs.generate_poisson_noise_pt(batch, 0.7, 1.0 if grey else 0.0)
    noise = pixels.poisson_noise(image, 0.7, RANDOM, grey=grey) - image
    assert noise.std() == pytest.approx(float(expected.std()), rel=0.02)


@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic"])
def test_resizing_is_that_of_pytorch(mode):
    batch = torch.from_numpy(IMAGE).permute(2, 0, 1)[None]
    expected = torch.nn.functional.interpolate(batch, (17, 50), mode=mode)[0].permute(1, 2, 0)
    np.testing.assert_allclose(pixels.resize(IMAGE, (17, 50), mode), expected.numpy(), atol=1e-6)


def test_choices_are_as_frequent_as_their_shares():
    shares = [0.45, 0.25, 0.0, 0.3]
    found = [one_of("abcd", RANDOM, shares) for _ in range(20000)]
    assert [found.count(each) / 20000 for each in "abcd"] == pytest.approx(shares, abs=0.015)


def made(**given):
    return check_options({"type": "real_esrgan"} | given, RealEsrgan, "degradation")


OFF = {
    "sinc_prob": 0.0,
    "sinc_prob2": 0.0,
    "final_sinc_prob": 0.0,
    "second_blur_prob": 0.0,
    "resize_prob": [0.0, 0.0, 1.0],
    "resize_prob2": [0.0, 0.0, 1.0],
    "gaussian_noise_prob": 1.0,
    "gaussian_noise_prob2": 1.0,
    "noise_range": [0.0, 0.0],
    "noise_range2": [0.0, 0.0],
    "jpeg_range": [100.0, 100.0],
    "jpeg_range2": [100.0, 100.0],
    "blur_sigma": [0.05, 0.05],
}


def smooth(side):
    rows, columns = np.mgrid[:side, :side] / side
    return np.stack([rows, columns, (rows + columns) / 2], 2).astype(np.float32)


def test_the_second_order_degradation_with_all_turned_off_only_downscales():
    image = smooth(64)
    result = real_esrgan(made(**OFF), image, (32, 32), np.random.default_rng(1))
    np.testing.assert_allclose(result[2:-2, 2:-2], image.reshape(32, 2, 32, 2, 3).mean((1, 3))[2:-2, 2:-2], atol=0.02)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"noise_range2": [20.0, 20.0], "gray_noise_prob2": 1.0}, 20 / 255),
        ({"noise_range": [30.0, 30.0]}, None),
        ({"jpeg_range": [5.0, 5.0]}, None),
        ({"blur_sigma": [3.0, 3.0]}, None),
        ({"resize_prob": [0.0, 1.0, 0.0], "resize_range": [0.15, 1.0]}, None),
        ({"final_sinc_prob": 1.0}, None),
        ({"second_blur_prob": 1.0, "blur_sigma2": [3.0, 3.0]}, None),
        ({"gaussian_noise_prob": 0.0, "poisson_scale_range": [3.0, 3.0]}, None),
    ],
)
def test_each_part_of_the_second_order_degradation_has_an_effect(changes, expected):
    image = smooth(64)
    image[16:48, 16:48] = RANDOM.random((32, 32, 3), np.float32)
    plain, changed = (
        np.mean(
            [
                real_esrgan(
                    made(**OFF | more),
                    image,
                    (32, 32),
                    np.random.default_rng(seed),
                )
                for seed in range(6)
            ],
            0,
        )
        for more in ({}, changes)
    )
    assert np.abs(plain - changed).mean() > 2e-3
    if expected:
        noisy = real_esrgan(made(**OFF | changes), np.full((64, 64, 3), 0.5, np.float32), (64, 64), RANDOM)
        assert noisy.std() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (40, 17)])
def test_any_size_is_degraded(size):
    for seed in range(20):
        result = real_esrgan(
            made(), np.full((4 * size[0], 4 * size[1], 3), 0.5, np.float32), size, np.random.default_rng(seed)
        )
        assert result.shape == (*size, 3)
        assert 0 <= result.min() <= result.max() <= 1


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"kernel_list": ["iso"]}, "kernels"),
        ({"resize_range": [1.2, 1.5]}, "resize-range"),
        ({"jpeg_range": [0.0, 95.0]}, "quality"),
        ({"blur_sigma": [0.0, 3.0]}, "blur-sigma"),
        ({"sinc_prob": 1.5}, "out-of-range"),
        ({"noise_range": [3.0]}, "out-of-range"),
        ({"blur_kernel_size": 5}, "out-of-range"),
    ],
)
def test_options_that_are_not_possible_are_refused(wrong, code):
    with refused(f"options.{code}"):
        made(**wrong)
