"""Benches of distillation: what a teacher adds to an update."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.config.options import check_options
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.schema import DistillOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import OutputTerm
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.losses import L1Loss
from imdn_kd.registry import ARCHS
from imdn_kd.training.run import check, fill_teacher_cache
from tests.training.small_runs import make_data, small_options

Compare = Callable[..., float]
BATCH, SIDE, CACHE_KEY = 16, 48, "cached"

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
PAIRWISE: dict[str, Any] = {"type": "PairwiseLoss", "preset": "paper", "taps": ["body_out"]}
STATISTICS: dict[str, Any] = {"type": "StatisticsLoss", "taps": ["block.2", "block.3", "block.5"]}
ZOO_MIX: dict[str, Any] = {
    "l_kd": {"type": "L1Loss"},
    "l_cd": {"type": "ContrastiveLoss", "space": "wavelet", "loss_weight": 0.01},
}


def update(compare: Compare) -> None:
    """IMDN_RTC x2 and a teacher IMDN x2; pixel-wise, pair-wise and statistics."""
    title = f"IMDN_RTC x2, batch {BATCH} of {SIDE}x{SIDE} px"
    plain = _update(None)
    compare(f"update, known results of a teacher / without one, {title}", _update(KNOWN, cache_key=CACHE_KEY), plain)
    teacher, lq = _teacher(), _batch()["lq"]

    def student_and_teacher() -> None:
        plain()
        teacher(lq)

    compare(
        "update, features of a teacher IMDN x2 / the same and its forward apart", _update(ASKED), student_and_teacher
    )


def cached_maps(compare: Compare) -> None:
    """IMDN_RTC x2 and a teacher IMDN x2: its features from the store against a live teacher, patches included.

    CPU time, one thread of PyTorch. Pair-wise compares nodes of 2x2 px, statistics a number per pixel at three depths.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = make_data(Path(name))
        for what, objective in (("pair-wise", PAIRWISE), ("statistics", STATISTICS)):
            known, asked = (_update_on_store(folder, objective, cache=cache) for cache in (True, False))
            title = f"update, {what} on cached maps / on a live teacher, IMDN_RTC x2, batch {BATCH}"
            compare(title, known, asked, clock=time.process_time)


def _update_on_store(folder: Path, objective: Mapping[str, Any], *, cache: bool) -> Callable[[], None]:
    """An update on the next patches of a store, as in a run."""
    torch.manual_seed(1)
    teacher = folder / "teacher.safetensors"
    save_model(teacher, ModelFile(ARCHS.build({"type": "imdn", "upscale": 2})))
    options = small_options(
        folder,
        {
            "network_g": {"type": "imdn_rtc", "num_feat": None, "num_block": None},
            "network_t": {"weights": str(teacher)},
            "datasets": {"train": {"gt_size": 2 * SIDE, "batch_size_per_gpu": BATCH}},
            "train": {"total_iter": 10**6},
            "distill": {"objectives": {"l_feature": objective}, "cache": cache},
        },
    )
    setup = check(options)
    if cache:
        fill_teacher_cache(options, setup)
        assert not setup.distiller.teacher_required
    optimizer = torch.optim.Adam(setup.network.parameters(), 1e-4, fused=True)
    batches = setup.loader.batches(0, 10**6, torch.device("cpu"))

    def call() -> None:
        optimizer.zero_grad()
        context = setup.distiller.run_student(next(batches)[0])
        torch.stack(list(setup.distiller.losses(context, 0).values())).sum().backward()
        optimizer.step()

    return call


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
    compare(title, _update(ZOO_MIX, cache_key=CACHE_KEY, network="plain_m", upscale=4), bare)


def _teacher(upscale: int = 2) -> Teacher:
    torch.manual_seed(1)
    return Teacher(ARCHS.build({"type": "imdn", "upscale": upscale}).to(memory_format=torch.channels_last))


def _batch(upscale: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sides = {"lq": SIDE, "gt": upscale * SIDE, CACHE_KEY: upscale * SIDE}
    return {
        name: torch.rand(BATCH, 3, side, side, generator=generator).contiguous(memory_format=torch.channels_last)
        for name, side in sides.items()
    }


def _update(
    objectives: Mapping[str, Any] | None, cache_key: str | None = None, network: str = "imdn_rtc", upscale: int = 2
) -> Callable[[], None]:
    torch.manual_seed(0)
    student = ARCHS.build({"type": network, "upscale": upscale}).to(memory_format=torch.channels_last)
    terms = [OutputTerm(L1Loss(), name="l_pix")]
    distiller, batch = Distiller(student, None, terms), _batch(upscale)
    if objectives is not None:
        options = check_options({"objectives": objectives}, DistillOptions, "bench")
        distiller = build_distiller(
            options, student, [_teacher(upscale)], terms=terms, total=10**6, sides=[SIDE], cache_key=cache_key
        )
    optimizer = torch.optim.Adam(student.parameters(), 1e-4, fused=True)

    def call() -> None:
        optimizer.zero_grad()
        torch.stack(list(distiller.losses(distiller.run_student(batch), 0).values())).sum().backward()
        optimizer.step()

    return call
