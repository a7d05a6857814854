"""The demo with a handful of steps: does it leave what the next commands need?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from imdn_kd import demo
from imdn_kd.data.resize import imresize
from imdn_kd.inference.imageio import read_image
from imdn_kd.inference.model_file import load_model


def test_leaves_a_model_and_a_photograph(tmp_path, capsys):
    demo.main(steps=2, out=tmp_path / "new" / "demo")

    folder = tmp_path / "new" / "demo"
    model = load_model(folder / "student.safetensors")
    assert model.network.spec["type"] == "IMDN_RTC"
    assert model.network.facts.scale == 2
    assert model.training["steps"] == 2
    assert set(model.training["psnr_y"]) == {"bicubic", "student"}
    assert "without a teacher" in model.card
    photo = read_image(folder / "HR" / "photo.png").pixels
    assert photo.shape == (400, 600, 3)
    np.testing.assert_array_equal(read_image(folder / "photo_lq.png").pixels, imresize(photo, 1 / 2))
    printed = capsys.readouterr().out
    assert "without a teacher" in printed
    assert f"{model.training['psnr_y']['bicubic']:.2f}" in printed


def test_can_be_run_again_over_its_own_results(tmp_path):
    demo.main(steps=1, out=tmp_path)
    demo.main(steps=1, out=tmp_path)

    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "photo.png",
        "photo_lq.png",
        "student.safetensors",
    ]


def test_the_held_out_photograph_is_not_trained_on():
    photo, *photos = demo._photographs()

    assert len(photos) == 4
    assert all(photo.shape != other.shape for other in photos)


def test_training_lowers_the_error_and_repeats_itself():
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (12, 12, 3), np.uint8)
    photo = imresize(coarse, 8)
    lr, hr = demo._tensor(imresize(photo, 1 / 2))[None], demo._tensor(photo)[None]

    def error(steps):
        network = demo.train([photo], steps)
        with torch.inference_mode():
            return (network(lr) - hr).abs().mean().item()

    first, later = error(1), error(40)
    assert later < first / 2
    assert error(1) == pytest.approx(first, rel=1e-6)


def test_patches_of_both_sizes_show_the_same_place():
    random = np.random.default_rng(2)
    lr = torch.rand(3, 40, 50)
    hr = lr.repeat_interleave(2, 1).repeat_interleave(2, 2)

    for _ in range(20):
        small, large = demo._patch(lr, hr, random)
        assert small.shape == (3, demo.PATCH, demo.PATCH)
        torch.testing.assert_close(large[:, ::2, ::2], small, rtol=0, atol=0)
        torch.testing.assert_close(large[:, 1::2, 1::2], small, rtol=0, atol=0)
