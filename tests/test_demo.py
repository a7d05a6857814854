"""The demo with a handful of steps: does it leave what the next commands need?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from imdn_kd import demo
from imdn_kd.data.jobs import open_source, write
from imdn_kd.data.options import PrepareOptions
from imdn_kd.data.origins import sources
from imdn_kd.data.resize import imresize
from imdn_kd.data.rgb import read_rgb
from imdn_kd.data.store import StoreDataset
from imdn_kd.inference.model_file import load_model


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """What `imdn-kd prepare sample sample_valid --scale 2` leaves."""
    folder = tmp_path_factory.mktemp("data")
    for source in ("sample", "sample_valid"):
        options = PrepareOptions(source=source, scale=[2.0])
        write(options, open_source(options, root=folder), root=folder)
    return folder


def bicubic_psnr(folder):
    """With scikit-image's functions."""
    hr = read_rgb(folder / "HR" / "coffee.png")
    enlarged = imresize(read_rgb(folder / "LRbicx2" / "coffeex2.png"), 2)
    one, other = (rgb2ycbcr(image)[2:-2, 2:-2, 0] for image in (hr, enlarged))
    return peak_signal_noise_ratio(one, other, data_range=255)


def test_leaves_a_model_and_says_what_it_is(root, tmp_path, capsys):
    demo.main(steps=2, data=root / "sample.store", valid=root / "sample_valid", out=tmp_path / "new")

    model = load_model(tmp_path / "new" / "student.safetensors")
    assert model.network.spec["type"] == "IMDN_RTC"
    assert model.network.facts.scale == 2
    assert (model.training["steps"], model.training["data"]) == (2, "sample.store")
    assert "without a teacher" in model.card
    printed = capsys.readouterr().out
    assert "2 steps on 4 photographs, without a teacher" in printed
    assert model.training["psnr_y"]["bicubic"] == pytest.approx(bicubic_psnr(root / "sample_valid"), abs=1e-3)
    assert f"{model.training['psnr_y']['student']:.2f}" in printed


def test_training_lowers_the_error_and_repeats_itself(root):
    images = StoreDataset(scale=2, dataroot=root / "sample.store")
    planes = images.read(0)
    lr, hr = (torch.from_numpy(np.array(planes[name])).permute(2, 0, 1)[None] / 255 for name in ("lq", "gt"))

    def error(steps):
        network = demo.train(images, steps)
        with torch.inference_mode():
            return (network(lr) - hr).abs().mean().item()

    first, later = error(1), error(40)
    assert later < first / 2
    assert error(1) == pytest.approx(first, rel=1e-6)


def test_what_is_held_out_is_not_trained_on():
    trained, held_out = ({each.name for each in sources.sample_source(name).originals} for name in sources.SAMPLE)
    assert trained.isdisjoint(held_out)
