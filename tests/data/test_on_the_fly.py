"""LR patches that are made while training: pure functions of seed, iteration and sample."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from imdn_kd.config.options import check_options
from imdn_kd.data.degradation.schema import read_steps
from imdn_kd.data.hr_images import HrImages
from imdn_kd.data.on_the_fly import LrPatches
from imdn_kd.data.patches import Patches
from imdn_kd.data.schema import TrainDataOptions
from imdn_kd.image.resize import imresize
from tests.refused import refused

STEPS = read_steps(
    [
        {"type": "blur", "sigma": [0.5, 2.0], "shape": "generalized", "beta": [0.5, 4.0], "prob": 0.5},
        {"type": "resize", "factor": [0.5, 1.5], "prob": 0.7},
        {"type": "poisson", "scale": [0.05, 2.0], "grey_prob": 0.4, "prob": 0.5},
        {"type": "bicubic"},
        {"type": "noise", "sigma": [1.0, 20.0], "grey_prob": 0.4},
        {"type": "jpeg", "quality": [30.0, 95.0]},
    ]
)
REAL = read_steps([{"type": "real_esrgan"}])
BICUBIC = read_steps([{"type": "bicubic"}])


def write_images(folder, images):
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")


@pytest.fixture(scope="module")
def hr_images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hr")
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((97, 130), (120, 90))]
    write_images(folder, images)
    return HrImages(scale=2, dataroot_gt=folder)


def cut(pairs, steps=STEPS, **options):
    return Patches(
        pairs, **({"gt_size": 48, "batch_size": 4, "augment_on": "worker", "degradation": steps, "seed": 3} | options)
    )


def same(one, other):
    return all(torch.equal(one[plane], other[plane]) for plane in ("gt", "lq"))


@pytest.mark.parametrize("steps", [STEPS, REAL], ids=["steps", "real_esrgan"])
def test_a_batch_depends_on_seed_iteration_and_sample_alone(hr_images, steps):
    alone = cut(hr_images, steps)
    batches = [alone[step] for step in range(4)]
    assert batches[0]["lq"].shape == (4, 3, 24, 24)
    assert not same(batches[0], batches[1])
    assert not same(batches[0], cut(hr_images, steps, seed=4)[0])
    assert same(cut(hr_images, steps)[2], batches[2])  # from the middle, as a run that goes on
    for workers in (1, 3):
        assert all(map(same, alone.loader(0, 4, workers=workers), batches))
    halves = [cut(hr_images, steps, batch_size=2).share(rank, 2)[1] for rank in (0, 1)]
    for plane in ("gt", "lq"):
        assert torch.equal(torch.cat([half[plane] for half in halves]), batches[1][plane])


def test_the_same_place_is_degraded_anew_in_each_iteration(hr_images):
    maker = LrPatches(STEPS, Fraction(2), seed=0)
    gt = hr_images.read(0)["gt"]
    first, again, later, other = (maker.patch(gt, (4, 6), 16, *at) for at in ((7, 1), (7, 1), (8, 1), (7, 2)))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, later)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("corner", [(0, 0), (20, 25), (24, 41)])
def test_a_patch_is_that_of_the_whole_image(hr_images, corner):
    gt = hr_images.read(0)["gt"]
    whole = imresize(gt, size=(48, 65))
    patch = LrPatches(BICUBIC, Fraction(2), seed=0).patch(gt, corner, 24, 5, 0)
    np.testing.assert_array_equal(patch, whole[corner[0] : corner[0] + 24, corner[1] : corner[1] + 24])


def test_fractional_scales_and_scale_1(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hr")
    write_images(folder, [np.random.default_rng(0).integers(0, 256, (100, 110, 3), np.uint8)])
    for scale, side in (("1.5", 32), ("1", 48), ("3", 16)):
        pairs = HrImages(scale=scale, dataroot_gt=folder)
        assert cut(pairs)[0]["lq"].shape == (4, 3, side, side)
        whole = imresize(pairs.read(0)["gt"], size=tuple(pairs.lq_sizes()[0]))
        corner = (6, 12)
        patch = LrPatches(BICUBIC, pairs.scale, seed=0).patch(pairs.read(0)["gt"], corner, 16, 0, 0)
        np.testing.assert_array_equal(patch, whole[6:22, 12:28])


def test_candidates_are_judged_by_the_hr_image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hr")
    image = np.full((64, 400, 3), 128, np.uint8)
    image[:, 300:] = np.random.default_rng(0).integers(0, 256, (64, 100, 3), np.uint8)
    write_images(folder, [image])
    pairs = HrImages(scale=2, dataroot_gt=folder)
    flat = [(cut(pairs, sharpness=each, batch_size=32)[0]["gt"] == 128).float().mean() for each in (1, 8)]
    assert flat[1] < flat[0] / 2


def test_jpeg_blocks_lie_anywhere_in_a_patch(hr_images):
    maker = LrPatches(read_steps([{"type": "jpeg", "quality": 5.0}]), Fraction(1), seed=0)
    ramp = np.broadcast_to(np.linspace(0, 255, 200).astype(np.uint8)[None, :, None], (200, 200, 3))
    phases = set()
    for number in range(40):
        rows = maker.patch(ramp, (80, 80), 40, 0, number)[20, :, 0].astype(int)
        phases.add(int(np.abs(np.diff(rows)).argmax()) % 8)
    assert len(phases) == 8


def options(**given):
    return check_options(
        {"gt_size": 48, "batch_size_per_gpu": 2, "degradation": [{"type": "bicubic"}]} | given,
        TrainDataOptions,
        "train",
    )


def test_option_files_name_no_lr_images():
    options(type="PairedImageDataset", dataroot_gt="hr")
    options(type="StoreDataset", dataroot="store")
    with refused("options.no-effect"):
        options(type="PairedImageDataset", dataroot_gt="hr", dataroot_lq="lr")


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "noise", "sigma": 3.0}],
        [{"type": "bicubic"}, {"type": "resize", "factor": 0.5}],
        [{"type": "bicubic"}] * 2,
    ],
    ids=["none downscales", "resized after", "twice"],
)
def test_steps_that_do_not_end_at_the_size_are_refused(hr_images, steps):
    with refused("degradation.steps"):
        cut(hr_images, read_steps(steps))
