"""What scores stand beside, and what is said of runs that cannot end well."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from torch import nn

from imdn_kd import zoo
from imdn_kd.data.benchmark_sets import find_set
from imdn_kd.evaluation.benchmark import Upsampler
from imdn_kd.training import best_checkpoint, run
from imdn_kd.training.optim import make_ema
from imdn_kd.training.setup import teacher_quality
from imdn_kd.training.setup.warnings import length_warnings
from tests.cli.run import run as command
from tests.reference import metrics, resize
from tests.training.small_runs import merged, small_options, train, with_validation

STUDENT = str(Path(zoo.__file__).parent / "imdn_rtc_x2.safetensors")
FIXED = {"train": {"total_iter": 4, "optim_g": {"lr": 1e-30}, "ema_decay": 0}}


def black(scale: int) -> Upsampler:
    """In place of bicubic interpolation: whatever is compared with it does better."""
    return Upsampler("bicubic", scale, lambda lr: np.zeros_like(lr).repeat(scale, 0).repeat(scale, 1))


def bicubic_by_hand(data) -> list[float]:
    """PSNR on Y of the set, without a line of the package's own measuring."""
    images = find_set(data / "held_out", 2)
    found = []
    for pair in images.pairs:
        hr, lr = images.load(pair)
        sr = resize.imresize(lr, hr.shape[:2], (2, 2))
        planes = [metrics.luma(each[2:-2, 2:-2]) for each in (sr, hr)]
        found.append(metrics.psnr(*planes))
    return found


def lines(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def measured(data, **changes):
    tested = {"datasets": {"test": {"name": "tested", "dataroot_gt": str(data / "held_out")}}}
    val = with_validation(data, select_on="held_out", select_on_benchmark=True)
    return small_options(data, merged(merged(merged(val, tested), FIXED), changes))


def test_bicubic_stands_beside_every_score_and_a_student_below_it_is_told(data, tmp_path, caplog):
    caplog.set_level(logging.INFO, "imdn_kd")
    expected = fmean(bicubic_by_hand(data))
    _, result = train(measured(data), tmp_path)
    beside = f" (bicubic: {expected:.3f})"
    scored = [line for line in lines(caplog) if "validation on held_out" in line or "test on tested" in line]
    assert len(scored) == 2
    assert all(line.endswith(beside) for line in scored)
    assert result.bicubic[0].psnr == pytest.approx(expected, abs=1e-6)
    told = dict(line.split(": ", 1) for line in result.below_bicubic)
    assert told == dict.fromkeys(
        ("held_out", "tested"),
        f"{result.test[0].psnr:.2f} dB, less than the {expected:.2f} of bicubic",
    )
    # Without selection the last validation counts.
    options = measured(data, val={"select_on": None, "select_on_benchmark": None}, name="other")
    assert train(options, tmp_path)[1].below_bicubic == result.below_bicubic


def test_a_student_above_bicubic_is_not_told(data, tmp_path, monkeypatch):
    monkeypatch.setattr(best_checkpoint, "bicubic", black)
    start = {"path": {"pretrain_network_g": STUDENT}}
    network = {"network_g": {"type": "imdn_rtc", "num_feat": None, "num_block": None}}
    assert train(measured(data, **start, **network), tmp_path)[1].below_bicubic == ()


def with_teacher(data, count: int, **changes):
    section = {"objectives": {"l_kd": {"type": "L1Loss"}}, "check_images": count}
    return measured(data, network_t={"weights": "imdn_rtc_x2"}, distill=section, **changes)


@pytest.mark.parametrize("count", [1, 2])
def test_the_teacher_stands_beside_the_student_on_the_same_images(count, data, tmp_path, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "imdn_kd")
    monkeypatch.setattr(teacher_quality, "bicubic", black)
    trainer, _ = train(with_teacher(data, count), tmp_path)
    (score,) = trainer.score(trainer.setup.val, lambda px: None)
    same = fmean(image.psnr for image in score.images[:count])
    teacher = fmean(trainer.setup.teacher.psnr.values())
    (line,) = [line for line in lines(caplog) if "validation on held_out" in line]
    shown = f"on the first 1 of 2 images: {same:.3f}, " if count == 1 else ""
    assert line.endswith(f"; {shown}the teacher: {teacher:.3f})")
    (line,) = [line for line in lines(caplog) if line.startswith("on the first")]
    assert line.startswith(f"on the first {count} of the 2 images of held_out: the teacher {teacher:.2f} dB, bicubic ")
    # The student's own measure, with the teacher's weights, gives the teacher's figure.
    alone = replace(trainer.setup.val[0], pairs=trainer.setup.val[0].pairs[:count])
    network = {"network_g": {"type": "imdn_rtc", "num_feat": None, "num_block": None}}
    start = {"path": {"pretrain_network_g": STUDENT}, "name": "same"}
    same_as_teacher = run.prepare(measured(data, **network, **start), root=tmp_path)
    assert same_as_teacher.score([alone], lambda px: None)[0].psnr == pytest.approx(teacher, abs=1e-3)


def test_a_run_that_resumes_keeps_the_teachers_score(data, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(teacher_quality, "bicubic", black)
    before, _ = train(with_teacher(data, 1), tmp_path)
    asked, score_teachers = [], teacher_quality.score_teachers

    def ask(*args, **keywords):
        asked.append(args)
        return score_teachers(*args, **keywords)

    monkeypatch.setattr(run, "score_teachers", ask)
    longer, _ = train(with_teacher(data, 1, train={"total_iter": 8}), tmp_path, auto_resume=True)
    assert (longer.setup.teacher, asked) == (before.setup.teacher, [])
    others, _ = train(with_teacher(data, 2, train={"total_iter": 12}), tmp_path, auto_resume=True)
    assert (len(others.setup.teacher.psnr), len(asked)) == (2, 1)


def told(data, total: int, **train) -> list[str]:
    """The options that are too long for so many iterations."""
    options = small_options(data, {"train": {"warmup_iter": 0, "ema_decay": 0, **train}})
    return [line.partition(": ")[0] for line in length_warnings(options, total)]


def share_of_the_first(decay: float, updates: int) -> float:
    """What is left of the weights after the first iteration, by the EMA that is trained with."""
    module = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(module.weight)
    ema = make_ema(module, decay, torch.device("cpu"))
    for _ in range(updates):
        ema.update_parameters(module)
        nn.init.zeros_(module.weight)
    return ema.module.weight.item()


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_averages_that_hold_the_first_weights_are_told_with_one_that_does_not(decay, data):
    for total in (1, 2, 5, 40, 80, 300, 600):
        share = share_of_the_first(decay, total)
        warned = told(data, total, ema_decay=decay)
        assert warned == (["train.ema_decay"] if share > 0.01 else []), (total, share)
        if warned:
            options = small_options(data, {"train": {"ema_decay": decay}})
            (line,) = length_warnings(options, total)
            assert f"still count {share:.0%} of" in line
            advised = float(re.search(r"give ([\d.]+) at most", line)[1])
            assert advised < decay
            assert not told(data, total, ema_decay=advised)


def test_what_is_too_long_for_a_run_is_told(data):
    assert told(data, 100, warmup_iter=50) == []
    assert told(data, 99, warmup_iter=50) == told(data, 50, warmup_iter=50) == ["train.warmup_iter"]
    assert told(data, 197, ema_decay=0.999, warmup_iter=2000) == ["train.warmup_iter", "train.ema_decay"]
    assert told(data, 10**6, ema_decay=0.999, warmup_iter=2000) == []


def test_the_command_ends_with_what_is_below_bicubic(data, tmp_path, capfd):
    options = measured(data).model_dump(mode="json", exclude_unset=True)
    (tmp_path / "run.yml").write_text(json.dumps(options))
    result = command(capfd, "train", "-opt", tmp_path / "run.yml", "--root", tmp_path)
    assert result.code == 0
    rows = [row.split("|")[1].strip() for row in result.out.splitlines() if re.match(r"\| (bicubic|run) ", row)]
    assert rows == ["bicubic", "run"]
    last = result.err.splitlines()[-2:]
    assert all(line.startswith("imdn-kd: ") and "less than the" in line for line in last)
