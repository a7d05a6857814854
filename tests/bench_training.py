"""Benches of training: the time of an update, against a bare loop and against BasicSR's own pipeline."""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml
from skimage import data
from torch.nn import functional as F  # noqa: N812

from imdn_kd.config.options import check_options
from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.registry import ARCHS
from imdn_kd.training.run import prepare
from imdn_kd.training.schema import TrainOptions
from tests.training.small_runs import make_data

BLOCK, BLOCKS = 10, 7
ITERATIONS, WARM_UP, ROUNDS = 24, 6, 3


def against_bare_loop() -> None:
    """The trainer with everything that it does, against forward, backward and step on a batch that is at hand."""
    for title, network, blocks in (
        ("IMDN x4, batch 8 of 48x48 px", {"type": "imdn", "upscale": 4}, 3),
        ("IMDN_RTC x2, batch 16 of 48x48 px", {"type": "imdn_rtc", "upscale": 2}, BLOCKS),
    ):
        ours, bare = _interleaved(network, blocks)
        print(f"{f'update of the trainer / bare loop, {title}':<78} {ours / bare:6.2f}   ({ours:.4f} s / {bare:.4f} s)")


def _interleaved(network: dict[str, object], blocks: int) -> tuple[float, float]:
    """Median seconds of an update on both sides: in the pauses of the trainer, the bare loop makes as many updates."""
    scale = int(network["upscale"])  # type: ignore[call-overload]
    batch = 8 if scale == 4 else 16
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = make_data(folder, scale=scale) / "sample.store"
        content = {
            "name": "bench",
            "scale": scale,
            "num_gpu": 0,
            "datasets": {
                "train": {
                    "type": "StoreDataset",
                    "dataroot": str(store),
                    "gt_size": 48 * scale,
                    "batch_size_per_gpu": batch,
                }
            },
            "network_g": network,
            "train": {
                "total_iter": BLOCK * (blocks + 1),
                "optim_g": {"type": "Adam", "lr": 2e-4},
                "pixel_opt": {"type": "L1Loss"},
            },
            "logger": {"print_freq": 10, "save_checkpoint_freq": 10**6},
        }
        bare = _bare_loop(network, batch, scale)
        times: dict[str, list[float]] = {"ours": [], "bare": []}
        start = time.perf_counter()

        def on_step(step: int, losses: object, rate: float) -> None:
            nonlocal start
            if step % BLOCK == 0:
                times["ours"].append(time.perf_counter() - start)
                start = time.perf_counter()
                for _ in range(BLOCK):
                    bare()
                times["bare"].append(time.perf_counter() - start)
                start = time.perf_counter()

        prepare(check_options(content, TrainOptions, "bench"), root=folder, on_step=on_step).run()
    # The first block warms up.
    ours, other = (statistics.median(values[1:]) / BLOCK for values in times.values())
    return ours, other


def _bare_loop(spec: dict[str, object], batch: int, scale: int):
    network = ARCHS.build(spec).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), 2e-4, fused=True)
    lq = torch.rand(batch, 3, 48, 48).contiguous(memory_format=torch.channels_last)
    gt = torch.rand(batch, 3, 48 * scale, 48 * scale).contiguous(memory_format=torch.channels_last)

    def update() -> float:
        optimizer.zero_grad()
        loss = F.l1_loss(network(lq), gt)
        loss.backward()
        optimizer.step()
        return loss.item()

    return update


# Both run a pipeline on the same option file and print when each update was finished.
_OURS = """
import json, sys, time
from imdn_kd.config.options import read_options
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.run import prepare
times = []
options = read_options(sys.argv[1], TrainOptions, sys.argv[2:])
prepare(options, root="experiments", on_step=lambda *_: times.append(time.perf_counter())).run()
print(json.dumps(times))
"""
_THEIRS = """
import json, sys, time
from imdn_kd.archs import IMDN
from imdn_kd.integrations.basicsr_networks import import_basicsr
registry = import_basicsr("basicsr.utils.registry").ARCH_REGISTRY
registry._do_register("IMDN", lambda **options: IMDN(**options))
model = import_basicsr("basicsr.models.sr_model").SRModel
step, times = model.optimize_parameters, []
def timed(self, iteration):
    step(self, iteration)
    times.append(time.perf_counter())
model.optimize_parameters = timed
sys.argv = ["train.py", "-opt", sys.argv[1]]
import_basicsr("basicsr.train").train_pipeline(".")
print(json.dumps(times))
"""


def against_basicsr() -> None:
    """The same option file, network, batch and images, each in a process of its own, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_images(folder)
        (folder / "bench.yml").write_text(yaml.safe_dump(_common_options()))
        sides = {
            "ours": [_OURS, "bench.yml"],
            "ours in bf16": [_OURS, "bench.yml", "train.precision=bf16"],
            "theirs": [_THEIRS, "bench.yml"],
        }
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, arguments in sides.items():
                seconds[side] += _updates(arguments, folder)
    theirs = statistics.median(seconds["theirs"])
    for side in ("ours", "ours in bf16"):
        ours = statistics.median(seconds[side])
        title = f"update of {side} / BasicSR's train_pipeline, IMDN x4, batch 8 of 48x48 px"
        print(f"{title:<78} {ours / theirs:6.2f}   ({ours:.4f} s / {theirs:.4f} s)")


def _updates(arguments: list[str], folder: Path) -> list[float]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(result.stderr)
    times = json.loads(result.stdout.splitlines()[-1])[WARM_UP:]
    return [after - before for before, after in itertools.pairwise(times)]


def _common_options() -> dict[str, object]:
    return {
        "name": "bench",
        "model_type": "SRModel",
        "scale": 4,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "sample",
                "type": "PairedImageDataset",
                "dataroot_gt": "HR",
                "dataroot_lq": "LR",
                "filename_tmpl": "{}",
                "io_backend": {"type": "disk"},
                "gt_size": 192,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 1,
                "batch_size_per_gpu": 8,
                "dataset_enlarge_ratio": 100,
                "prefetch_mode": None,
            }
        },
        "network_g": {"type": "IMDN", "upscale": 4},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.999,
            "optim_g": {"type": "Adam", "lr": 2e-4, "weight_decay": 0, "betas": [0.9, 0.99]},
            "scheduler": {"type": "MultiStepLR", "milestones": [200000], "gamma": 0.5},
            "total_iter": ITERATIONS,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "logger": {
            "print_freq": 10,
            "save_checkpoint_freq": 1000000,
            "use_tb_logger": False,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29500},
    }


def _write_images(folder: Path) -> None:
    """Sixteen pieces of photographs as PNG files, with their partners."""
    photo = data.stereo_motorcycle()[0]
    for number in range(16):
        top, left = divmod(number, 4)
        pixels = photo[5 * top : 5 * top + 480, 60 * left : 60 * left + 480]
        write_image(folder / "HR" / f"{number:02}.png", Picture(pixels))
        write_image(folder / "LR" / f"{number:02}.png", Picture(imresize(pixels, 1 / 4)))
