"""Scores that are kept on the disk until a benchmark is finished."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from imdn_kd.archs.imdn import IMDN_RTC
from imdn_kd.data.degradation.schema import parse_steps
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.evaluation import score_log
from imdn_kd.evaluation.benchmark import Scoring, bicubic, open_upsamplers, plan_tasks
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.rgb import read_rgb
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.fake_set import make_set

SET = DataSource("mine")


def make_model(seed: int = 0, value_range: float = 1.0) -> None:
    torch.manual_seed(seed)
    save_model("tiny.safetensors", ModelFile(IMDN_RTC(num_feat=4, num_block=1, upscale=2), value_range))


def scoring(
    source: DataSource = SET, *, upsampler=None, protocol=None, explain=False, save="kept", **opened
) -> Scoring:
    models = [upsampler] if upsampler else open_upsamplers(["tiny.safetensors"], device="cpu", **opened)
    (task,) = plan_tasks(models, [source], root=".")
    return Scoring(task, protocol=protocol, explain=explain, save=save, keep=True)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """The scores of two images, kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(score_log, "log_folder", lambda: tmp_path / "cache")
    make_model()
    make_set(tmp_path / "mine", lr="LRbicx2", size=(24, 26))
    whole = scoring()
    assert [whole.left for _ in whole] == [1, 0]
    return whole.result()


def flip(path: str) -> None:
    write_image(path, Picture(np.flip(read_rgb(Path(path)), 0)), overwrite=True)


def test_all_is_found_again(measured):
    again = scoring()
    assert again.left == 0
    assert list(again) == []
    assert again.result() == measured
    again.forget()
    assert scoring().left == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"protocol": Protocol(space="rgb")},
        {"explain": True},
        {"save": None},
        {"save": "elsewhere"},
        {"source": replace(SET, grey=True)},
        {"source": replace(SET, steps=parse_steps("bicubic"))},
        {"source": replace(SET, steps=parse_steps("bicubic+noise=3"))},
        {"upsampler": bicubic(2)},
        {"self_ensemble": True},
        {"precision": "bf16"},
        {"scale": 4},
    ],
    ids=("rgb", "explain", "no folder", "folder", "grey", "bicubic", "noise", "upsampler", "ensemble", "bf16", "x4"),
)
def test_under_other_options_nothing_is(measured, changed):
    assert scoring(**changed).left == 2
    assert scoring().left == 0


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda: make_model(seed=1), 2),
        (lambda: make_model(value_range=255), 2),
        (lambda: flip("mine/HR/baby.png"), 2),
        (lambda: flip("mine/LRbicx2/birdx2.png"), 2),
        (lambda: flip("kept/x2/mine/baby_tiny.png"), 1),
        (lambda: Path("kept/x2/mine/bird_tiny.png").unlink(), 1),
    ],
    ids=["weights", "value range", "HR image", "LR image", "other result", "no result"],
)
def test_of_other_files_nothing_is(measured, change, left):
    change()
    again = scoring()
    assert again.left == left
    assert len(list(again)) == left
    again.forget()
    fresh = scoring()
    assert len(list(fresh)) == 2
    assert [(image.psnr, image.ssim) for image in again.result().images] == [
        (image.psnr, image.ssim) for image in fresh.result().images
    ]


def test_what_cannot_be_told_apart_is_not_kept(measured):
    unknown = replace(bicubic(2), identity="")
    assert len(list(scoring(upsampler=unknown))) == 2
    assert scoring(upsampler=unknown).left == 2
    assert not scoring(upsampler=unknown).kept
