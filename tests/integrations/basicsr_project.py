"""A BasicSR project in a folder: images, a teacher, option files, and the `main.py` of the recipe."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from imdn_kd.image.io import Picture, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.fake_set import picture
from tests.training.small_runs import merged

STUDENT = {"type": "IMDN", "num_feat": 8, "num_block": 2, "upscale": 2}
TEACHER = {"type": "IMDN", "num_feat": 12, "num_block": 2, "upscale": 2}

OBJECTIVES = {
    "l_kd": {"type": "L1Loss", "loss_weight": 0.5},
    "l_pair": {"type": "PairwiseLoss", "preset": "paper", "loss_weight": 10.0, "taps": ["block.2", "body_out"]},
    "l_mimic": {"type": "MimicLoss", "loss_weight": 0.1, "taps": ["head", "block.1"]},
    # Without the penalty, nothing is drawn at random.
    "l_gan": {
        "type": "HolisticTerm",
        "loss_weight": 0.01,
        "gradient_penalty": 0.0,
        "critic": {"num_feat": 8, "stages": 3},
    },
}

# `load_resume_state` asks for a GPU whatever `num_gpu` says.
_MAIN = """
import imdn_kd.integrations.basicsr
import basicsr.train, torch

def load_resume_state(opt):
    if not opt["path"].get("resume_state"):
        return None
    state = torch.load(opt["path"]["resume_state"])
    basicsr.train.check_resume(opt, state["iter"])
    return state

basicsr.train.load_resume_state = load_resume_state
torch.set_num_threads(1)
basicsr.train.train_pipeline(".")
"""


def make_project(folder: Path) -> Path:
    """Write two pairs of images, all of which are one batch, and a teacher."""
    for seed in range(2):
        original = picture((32, 32), seed)
        write_image(folder / "HR" / f"{seed}.png", Picture(original))
        write_image(folder / "LR" / f"{seed}.png", Picture(imresize(original, 1 / 2)))
    torch.manual_seed(1)
    save_model(folder / "teacher.safetensors", ModelFile(ARCHS.build(TEACHER)))
    (folder / "main.py").write_text(_MAIN)
    return folder


def content(folder: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """An option file for 20 updates, as plain values."""
    data = {
        "type": "PairedImageDataset",
        "dataroot_gt": str(folder / "HR"),
        "dataroot_lq": str(folder / "LR"),
        "io_backend": {"type": "disk"},
    }
    train = {"gt_size": 32, "use_hflip": False, "use_rot": False, "num_worker_per_gpu": 0, "batch_size_per_gpu": 2}
    options = {
        "name": "run",
        "model_type": "DistillModel",
        "scale": 2,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": {"name": "pairs", **data, **train}, "val": {"name": "held_out", **data}},
        "network_g": STUDENT,
        "network_t": {"weights": str(folder / "teacher.safetensors")},
        "distill": {"objectives": OBJECTIVES},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "total_iter": 20,
            "warmup_iter": -1,
            # With the usual `eps`, Adam makes whole steps of gradients that are nothing but rounding.
            "optim_g": {"type": "Adam", "lr": 2e-3, "betas": [0.9, 0.99], "eps": 1e-4},
            "optim_d": {"type": "Adam", "lr": 1e-3, "betas": [0.0, 0.9], "eps": 1e-4},
            "scheduler": {"type": "MultiStepLR", "milestones": [5, 15], "gamma": 0.5},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
        "val": {"val_freq": 10, "save_img": False, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}},
        "logger": {"print_freq": 5, "save_checkpoint_freq": 10, "use_tb_logger": False},
    }
    return merged(options, changes or {})


def run_pipeline(folder: Path, changes: Mapping[str, Any] | None = None) -> str:
    """Train in another process as a user would, and return what was printed."""
    (folder / "options.yml").write_text(yaml.safe_dump(content(folder, changes), sort_keys=False))
    command = [sys.executable, "-W", "ignore", "main.py", "-opt", "options.yml"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def weights(folder: Path, label: str, step: int) -> dict[str, dict[str, torch.Tensor]]:
    """A saved network, by the keys `params` and `params_ema`."""
    return torch.load(folder / "experiments" / "run" / "models" / f"{label}_{step}.pth", weights_only=True)


def options_of_basicsr(folder: Path, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What BasicSR's `parse_options` makes of an option file."""
    own = {"dist": False, "rank": 0, "world_size": 1, "is_train": True, "auto_resume": False}
    models = {"models": str(folder), "training_states": str(folder)}
    return merged(merged(content(folder), {**own, "path": models}), changes or {})
