from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imdn_kd.evaluation.metrics import is_measurable, psnr, ssim, to_grey
from imdn_kd.evaluation.protocol import PROTOCOLS, Protocol
from imdn_kd.image.resize import imresize
from tests.basicsr_compat import import_basicsr
from tests.reference import metrics as reference
from tests.refused import refused
from tests.shared_data import needs_shared, set5_pairs

RGB = PROTOCOLS["rgb"]


def pair(shape: tuple[int, ...] = (30, 26, 3), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A random image and the same with noise, both smooth enough for SSIM to say something."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (shape[0] // 4 + 1, shape[1] // 4 + 1, *shape[2:]), dtype=np.uint8)
    hr = imresize(coarse, size=shape[:2])
    sr = np.clip(hr + generator.normal(0, 12, shape), 0, 255).astype(np.uint8)
    return sr, hr


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_equals_slow_reference(scale):
    sr, hr = pair()
    border = 0 if scale == 1 else scale
    inner = (slice(border, -border or None), slice(border, -border or None))
    a, b = reference.luma(sr[inner]), reference.luma(hr[inner])
    assert psnr(sr, hr, scale) == pytest.approx(reference.psnr(a, b), abs=1e-9)
    assert ssim(sr, hr, scale) == pytest.approx(reference.ssim(a, b), abs=1e-9)
    assert psnr(sr, hr, scale, RGB) == pytest.approx(reference.psnr(sr[inner], hr[inner]), abs=1e-9)
    channels = [reference.ssim(sr[inner][..., c].astype(float), hr[inner][..., c].astype(float)) for c in range(3)]
    assert ssim(sr, hr, scale, RGB) == pytest.approx(np.mean(channels), abs=1e-9)


def assert_equals_basicsr(sr: np.ndarray, hr: np.ndarray, border: int) -> None:
    basicsr = import_basicsr("basicsr.metrics.psnr_ssim")
    bgr = sr[..., ::-1], hr[..., ::-1]
    for space, y_channel in (("y", True), ("rgb", False)):
        protocol = Protocol(space=space, shave=border)
        options = {"crop_border": border, "test_y_channel": y_channel}
        assert psnr(sr, hr, 1, protocol) == pytest.approx(basicsr.calculate_psnr(*bgr, **options), abs=1e-6)
        assert ssim(sr, hr, 1, protocol) == pytest.approx(basicsr.calculate_ssim(*bgr, **options), abs=1e-6)


@pytest.mark.parametrize("border", [0, 2, 3, 4])
@pytest.mark.parametrize("shape", [(40, 33, 3), (19, 64, 3)])
def test_equals_basicsr_on_noise(shape, border):
    assert_equals_basicsr(*pair(shape), border)


@needs_shared
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_equals_basicsr_on_set5(scale):
    for hr, lr in set5_pairs(scale):
        assert_equals_basicsr(imresize(lr, scale), hr, scale)


@needs_shared
@pytest.mark.parametrize(
    ("scale", "published_psnr", "published_ssim"), [(2, 33.66, 0.9299), (3, 30.39, 0.8682), (4, 28.42, 0.8104)]
)
def test_bicubic_has_its_published_set5_figures(scale, published_psnr, published_ssim):
    scores = [
        (psnr(imresize(lr, scale), hr, scale), ssim(imresize(lr, scale), hr, scale)) for hr, lr in set5_pairs(scale)
    ]
    assert np.mean(scores, axis=0) == pytest.approx([published_psnr, published_ssim], abs=0.02)


GREY = PROTOCOLS["y-grey"]


def test_grey_images_by_their_own_values():
    """As the tables of SRCNN have it, and so by 255 / 219 of the range of Y less."""
    sr, hr = pair((30, 26))
    a, b = (image[2:-2, 2:-2].astype(float) for image in (sr, hr))
    assert psnr(sr, hr, 2, GREY) == pytest.approx(reference.psnr(a, b), abs=1e-9)
    assert ssim(sr, hr, 2, GREY) == pytest.approx(reference.ssim(a, b), abs=1e-9)
    assert psnr(sr, hr, 2) - psnr(sr, hr, 2, GREY) == pytest.approx(20 * math.log10(255 / 219), abs=1e-9)
    assert np.array_equal(to_grey(np.dstack([sr] * 3)), sr)


def test_the_protocol_of_grey_images_leaves_others_alone():
    sr, hr = pair()
    assert psnr(sr, hr, 2, GREY) == psnr(sr, hr, 2)
    assert "grey images as R = G = B" in PROTOCOLS["standard"].describe()


@settings(max_examples=25, deadline=None)
@given(st.integers(12, 30), st.integers(12, 30), st.sampled_from(sorted(PROTOCOLS)), st.integers(0, 99))
def test_symmetric_and_perfect_for_equal_images(height, width, name, seed):
    sr, hr = pair((height, width, 3), seed)
    protocol = Protocol(space=PROTOCOLS[name].space, shave=0, ssim_window=PROTOCOLS[name].ssim_window)
    assert psnr(sr, hr, 2, protocol) == psnr(hr, sr, 2, protocol)
    assert ssim(sr, hr, 2, protocol) == pytest.approx(ssim(hr, sr, 2, protocol), abs=1e-12)
    assert psnr(hr, hr, 2, protocol) == math.inf
    assert ssim(hr, hr, 2, protocol) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", sorted(PROTOCOLS.keys() - {"y-grey"}))
def test_grey_equals_rgb_with_equal_channels(name):
    sr, hr = pair((30, 26))
    both = np.stack([sr] * 3, axis=2), np.stack([hr] * 3, axis=2)
    assert psnr(sr, hr, 2, PROTOCOLS[name]) == pytest.approx(psnr(*both, 2, PROTOCOLS[name]), abs=1e-9)
    assert ssim(sr, hr, 2, PROTOCOLS[name]) == pytest.approx(ssim(*both, 2, PROTOCOLS[name]), abs=1e-9)


def test_known_values():
    hr = np.full((20, 20, 3), 100, np.uint8)
    sr = hr + np.uint8(1)
    assert psnr(sr, hr, 2, RGB) == pytest.approx(20 * math.log10(255))
    assert psnr(sr, hr, 2) == pytest.approx(20 * math.log10(255 * 255 / 219))
    # Y of these greys is 101.88 and 102.74, which round to 102 and 103.
    assert psnr(sr, hr, 2, PROTOCOLS["y-rounded"]) == pytest.approx(20 * math.log10(255))


def test_borders_do_not_count():
    sr, hr = pair()
    spoilt = sr.copy()
    spoilt[:3] = spoilt[-3:] = 0
    spoilt[:, :3] = spoilt[:, -3:] = 255
    assert psnr(spoilt, hr, 3) == psnr(sr, hr, 3)
    assert ssim(spoilt, hr, 3) == ssim(sr, hr, 3)
    assert psnr(spoilt, hr, 2.7) == psnr(sr, hr, 3)
    assert psnr(spoilt, hr, 3, PROTOCOLS["no-shave"]) < psnr(sr, hr, 3, PROTOCOLS["no-shave"])


def test_other_habits():
    from skimage.metrics import structural_similarity

    sr, hr = pair()
    bgr = sr[..., ::-1].copy(), hr[..., ::-1].copy()
    assert psnr(sr, hr, 2, PROTOCOLS["y-swapped"]) == pytest.approx(psnr(*bgr, 2))
    luma = [np.asarray(Image.fromarray(image[2:-2, 2:-2]).convert("YCbCr"))[..., 0] for image in (sr, hr)]
    assert psnr(sr, hr, 2, PROTOCOLS["y-pillow"]) == pytest.approx(reference.psnr(*luma))
    y = [reference.luma(image[2:-2, 2:-2]) for image in (sr, hr)]
    assert ssim(sr, hr, 2, PROTOCOLS["ssim-7x7"]) == pytest.approx(structural_similarity(*y, data_range=255))
    assert psnr(sr, hr, 2, PROTOCOLS["y-rounded"]) == pytest.approx(reference.psnr(*(np.rint(plane) for plane in y)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (3, 3, 3), (8, 30, 3), (30, 8)])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_too_small_is_nan_not_an_error(shape, name):
    sr, hr = np.zeros(shape, np.uint8), np.ones(shape, np.uint8)
    protocol = PROTOCOLS[name]
    assert math.isnan(psnr(sr, hr, 4, protocol)) == (protocol.shave is None and min(shape[:2]) <= 8)
    assert math.isnan(ssim(sr, hr, 4, protocol))


def test_smallest_image_with_a_window():
    sr, hr = pair((19, 19, 3))
    assert not math.isnan(ssim(sr, hr, 4))
    assert math.isnan(ssim(sr[1:], hr[1:], 4))
    assert not math.isnan(ssim(sr[4:], hr[4:], 4, PROTOCOLS["ssim-7x7"]))


@pytest.mark.parametrize("metric", [psnr, ssim])
@pytest.mark.parametrize(
    ("sr", "hr"),
    [
        (np.zeros((20, 20, 3), np.uint8), np.zeros((20, 22, 3), np.uint8)),
        (np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20), np.uint8)),
        (np.zeros((20, 20)), np.zeros((20, 20))),
        (np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint16)),
        (np.zeros((20, 20, 4), np.uint8), np.zeros((20, 20, 4), np.uint8)),
    ],
)
def test_bad_images(metric, sr, hr):
    with refused("metrics.images"):
        metric(sr, hr, 2)


@pytest.mark.parametrize("options", [{"space": "hsv"}, {"ssim_window": "box"}, {"shave": -1}])
def test_bad_protocol(options):
    with refused("metrics.protocol"):
        Protocol(**options)


def test_descriptions_are_one_line_each_and_differ():
    lines = [protocol.describe() for protocol in PROTOCOLS.values()]
    assert len(set(lines)) == len(PROTOCOLS)
    assert not any("\n" in line for line in lines)


@pytest.mark.processes
def test_import_is_light():
    code = "import sys, imdn_kd.evaluation.metrics; assert not {'scipy', 'skimage', 'torch', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_what_is_measurable_is_what_has_figures(protocol, scale):
    for side in range(1, 24):
        image = np.zeros((side, 40, 3), np.uint8)
        assert is_measurable((side, 40), scale, protocol) == (not math.isnan(ssim(image, image, scale, protocol)))
