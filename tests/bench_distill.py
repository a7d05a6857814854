"""Benches of distillation: what a teacher adds to an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.config.options import check_options
from imdn_kd.distill.builder import make_lesson
from imdn_kd.distill.distiller import Distiller, Lesson
from imdn_kd.distill.schema import DistillOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import GroundTruthTerm, Term
from imdn_kd.distill.weighting import weight_schedule
from imdn_kd.losses import L1Loss
from imdn_kd.registry import ARCHS

Compare = Callable[..., float]
BATCH, SIDE, PLANE = 16, 48, "known"

KNOWN: dict[str, Any] = {
    "l_kd": {"type": "L1Loss"},
    "l_pair": {"type": "PairwiseLoss", "preset": "paper", "taps": ["sr"]},
    "l_stat": {"type": "StatisticsLoss", "taps": ["sr"]},
}
ASKED: dict[str, Any] = {
    "l_kd": {"type": "L1Loss"},
    "l_pair": {"type": "PairwiseLoss", "preset": "paper", "taps": ["body_out"]},
    "l_stat": {"type": "StatisticsLoss", "taps": ["block.2", "block.3", "block.5"]},
}
ZOO_MIX: dict[str, Any] = {
    "l_kd": {"type": "L1Loss"},
    "l_cd": {"type": "ContrastiveLoss", "space": "wavelet", "loss_weight": 0.01},
}


def update(compare: Compare) -> None:
    """IMDN_RTC x2 and a teacher IMDN x2; pixel-wise, pair-wise and statistics."""
    title = f"IMDN_RTC x2, batch {BATCH} of {SIDE}x{SIDE} px"
    plain = _update(None)
    compare(f"update, known results of a teacher / without one, {title}", _update(KNOWN, plane=PLANE), plain)
    teacher, lq = _teacher(), _batch()["lq"]

    def student_and_teacher() -> None:
        plain()
        teacher(lq)

    compare(
        "update, features of a teacher IMDN x2 / the same and its forward apart", _update(ASKED), student_and_teacher
    )


def zoo_mix(compare: Compare) -> None:
    """plain_m x4 with the losses of the zoo and cached results of a teacher, against a bare loop with L1 alone.

    One thread of PyTorch, so that the ratio does not depend on the number of cores.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student = ARCHS.build({"type": "plain_m", "upscale": 4}).to(memory_format=torch.channels_last)
    optimizer, batch = torch.optim.Adam(student.parameters(), 1e-4, fused=True), _batch(4)

    def bare() -> None:
        optimizer.zero_grad()
        functional.l1_loss(student(batch["lq"]), batch["gt"]).backward()
        optimizer.step()

    title = f"update, mix of the zoo / bare loop with L1, plain_m x4, {BATCH} of {SIDE}x{SIDE} px"
    compare(title, _update(ZOO_MIX, plane=PLANE, network="plain_m", upscale=4), bare)


def _teacher(upscale: int = 2) -> Teacher:
    torch.manual_seed(1)
    return Teacher(ARCHS.build({"type": "imdn", "upscale": upscale}).to(memory_format=torch.channels_last))


def _batch(upscale: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = {"lq": SIDE, "gt": upscale * SIDE, PLANE: upscale * SIDE}
    return {
        name: torch.rand(BATCH, 3, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
        for name, side in sides.items()
    }


def _update(
    objectives: Mapping[str, Any] | None, plane: str | None = None, network: str = "imdn_rtc", upscale: int = 2
) -> Callable[[], None]:
    torch.manual_seed(0)
    student = ARCHS.build({"type": network, "upscale": upscale}).to(memory_format=torch.channels_last)
    terms = [Term("l_pix", GroundTruthTerm(L1Loss()), weight_schedule(1.0, total=10**6))]
    lesson = Lesson(terms)
    if objectives is not None:
        options = check_options({"objectives": objectives}, DistillOptions, "bench")
        lesson = make_lesson(options, student, [_teacher(upscale)], terms=terms, total=10**6, sides=[SIDE], plane=plane)
    distiller, batch = Distiller(student, lesson, student), _batch(upscale)
    optimizer = torch.optim.Adam(student.parameters(), 1e-4, fused=True)

    def call() -> None:
        optimizer.zero_grad()
        torch.stack(list(distiller.losses(distiller.run_student(batch), 0).values())).sum().backward()
        optimizer.step()

    return call
