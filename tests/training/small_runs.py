"""Small training runs: a store of the sample photographs, options that can be varied, and a loop to compare with."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Callable, Mapping
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from imdn_kd.config.options import check_options
from imdn_kd.data.preparation.job import open_source, write_dataset
from imdn_kd.data.preparation.schema import PrepareOptions
from imdn_kd.image.io import Picture, write_image
from imdn_kd.registry import ARCHS
from imdn_kd.training import signals
from imdn_kd.training.loader import TrainLoader
from imdn_kd.training.run import prepare
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.trainer import Trainer, TrainResult
from imdn_kd.training.update import TrainStep
from tests.fake_set import picture

BASE: dict[str, Any] = {
    "name": "run",
    "scale": 2,
    "num_gpu": 0,
    "datasets": {"train": {"type": "StoreDataset", "gt_size": 32, "batch_size_per_gpu": 4}},
    "network_g": {"type": "IMDN", "num_feat": 8, "num_block": 2, "upscale": 2},
    "train": {
        "total_iter": 12,
        "ema_decay": 0.9,
        "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99]},
        "scheduler": {"type": "MultiStepLR", "milestones": [8], "gamma": 0.5},
        "pixel_opt": {"type": "L1Loss"},
    },
    "logger": {"print_freq": 3, "save_checkpoint_freq": 4, "keep_last": 0, "use_tb_logger": False},
}


def make_data(folder: Path, scale: float = 2.0) -> Path:
    """`sample.store` and a set of two small photographs, `held_out`."""
    options = PrepareOptions(source="sample", scale=[scale])
    write_dataset(options, open_source(options, root=folder), root=folder)
    for seed in (0, 1):
        write_image(folder / "held_out" / "HR" / f"{seed}.png", Picture(picture((36, 40), seed)))
    return folder


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with values of nested sections replaced; None takes a key away."""
    result = dict(base)
    for key, value in changes.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def content(data: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An option file, as plain values."""
    whole = merged(BASE, {"datasets": {"train": {"dataroot": str(data / "sample.store")}}})
    return merged(whole, changes or {})


def small_options(data: Path, changes: Mapping[str, Any] | None = None) -> TrainOptions:
    return check_options(content(data, changes), TrainOptions, "test")


def with_validation(data: Path, **val: Any) -> dict[str, Any]:
    """Changes that add a set to validate on every 4 updates."""
    held_out = {"name": "held_out", "dataroot_gt": str(data / "held_out")}
    return {"datasets": {"val": held_out}, "val": {"val_freq": 4, **val}}


def train(options: TrainOptions, root: Path, **keywords: Any) -> tuple[Trainer, TrainResult]:
    trainer = prepare(options, root=root, **keywords)
    return trainer, trainer.run()


def fake_clock(monkeypatch: pytest.MonkeyPatch, seconds: float = 1.0) -> None:
    """Let an iteration take so many seconds and nothing else any, by the clock of deadlines."""
    now, step = [0.0], TrainStep.run

    def slow(*args: Any, **keywords: Any) -> Any:
        now[0] += seconds
        return step(*args, **keywords)

    monkeypatch.setattr(TrainStep, "run", slow)
    # Not the class: modules that are imported later would keep what stands for it.
    init = partialmethod(signals.Deadline.__init__, clock=lambda: now[0])
    monkeypatch.setattr(signals.Deadline, "__init__", init)


def killed_at_random(go_on: Callable[..., None], whole: float, *args: Any) -> int:
    """Kill processes that `go_on(*args)`, by SIGKILL at random moments, until one ends by itself; returns how many.

    Args:
        go_on: goes on with a run.
        whole: seconds that the run takes here.
        args: of `go_on`.
    """
    draw = random.Random(0)
    context = multiprocessing.get_context("fork")
    for kills in range(40):
        process = context.Process(target=go_on, args=args)
        process.start()
        # Later attempts get more time, so that the run ends on a busy machine too.
        process.join(draw.uniform(0.02, 0.2 + kills / 15) * whole)
        if not process.is_alive():
            assert process.exitcode == 0
            return kills
        process.kill()
        process.join()
    raise AssertionError("the run did not end")


def state_file(root: Path, step: int, name: str = "run") -> dict[str, Any]:
    return torch.load(root / name / "training_states" / f"{step}.state", weights_only=True)


def metrics(root: Path, name: str = "run") -> list[dict[str, Any]]:
    lines = (root / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """All entries of nested containers by their path; tensors as bytes."""
    if isinstance(value, Mapping):
        return {k: v for name, item in value.items() for k, v in flat(item, f"{key}.{name}").items()}
    if isinstance(value, list | tuple):
        return {k: v for number, item in enumerate(value) for k, v in flat(item, f"{key}.{number}").items()}
    return {key: value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else value}


def bare_loop(
    options: TrainOptions, images: Any, updates: int, *, rate: Callable[[int], float], clip: float | None = None
) -> tuple[list[float], dict[str, Tensor]]:
    """What a person would write: NCHW, plain Adam, L1. Returns the losses and the weights."""
    torch.manual_seed(options.manual_seed)
    network = ARCHS.build(options.network_g.spec())
    betas = tuple(options.train.optim_g.settings()["betas"])
    optimizer = torch.optim.Adam(network.parameters(), betas=betas)
    batches = TrainLoader(
        options.datasets.train, images, seed=options.manual_seed, accumulation=options.train.accumulation
    )
    losses = []
    for step, parts in enumerate(batches.batches(0, updates, torch.device("cpu"))):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        total = 0.0
        for part in parts:
            lq, gt = part["lq"].contiguous(), part["gt"].contiguous()
            loss = F.l1_loss(network(lq), gt) / len(parts)
            loss.backward()
            total += loss.item()
        if clip is not None:
            norm = np.sqrt(sum(float(p.grad.double().square().sum()) for p in network.parameters()))
            for parameter in network.parameters():
                parameter.grad *= min(1.0, clip / norm)
        optimizer.step()
        losses.append(total)
    return losses, network.state_dict()
