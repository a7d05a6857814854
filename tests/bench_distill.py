"""Benches of distillation: what a teacher adds to an update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from imdn_kd.distill.build import make_lesson
from imdn_kd.distill.distiller import Distiller, Lesson
from imdn_kd.distill.objective import Fidelity, Term
from imdn_kd.distill.options import DistillOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.weighting import course
from imdn_kd.losses import L1Loss
from imdn_kd.option_files import check_options
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


def _teacher() -> Teacher:
    torch.manual_seed(1)
    return Teacher(ARCHS.build({"type": "imdn", "upscale": 2}).to(memory_format=torch.channels_last))


def _batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = {"lq": SIDE, "gt": 2 * SIDE, PLANE: 2 * SIDE}
    return {
        name: torch.rand(BATCH, 3, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
        for name, side in sides.items()
    }


def _update(objectives: Mapping[str, Any] | None, plane: str | None = None) -> Callable[[], None]:
    torch.manual_seed(0)
    student = ARCHS.build({"type": "imdn_rtc", "upscale": 2}).to(memory_format=torch.channels_last)
    terms = [Term("l_pix", Fidelity(L1Loss()), course(1.0, total=10**6))]
    lesson = Lesson(terms)
    if objectives is not None:
        options = check_options({"objectives": objectives}, DistillOptions, "bench")
        lesson = make_lesson(options, student, [_teacher()], terms=terms, total=10**6, sides=[SIDE], plane=plane)
    distiller, batch = Distiller(student, lesson, student), _batch()
    optimizer = torch.optim.Adam(student.parameters(), 1e-4, fused=True)

    def call() -> None:
        optimizer.zero_grad()
        torch.stack(list(distiller.losses(distiller.look(batch), 0).values())).sum().backward()
        optimizer.step()

    return call
