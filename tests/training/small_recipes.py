"""Recipes of tiny students, and a zoo of students as `imdn-kd zoo publish` would have left them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from imdn_kd.image.io import Picture, write_image
from imdn_kd.inference.model_file import ModelFile, save_model
from imdn_kd.registry import ARCHS
from tests.fake_set import picture
from tests.training.small_runs import content, make_data, merged

NETWORK = {"type": "IMDN", "num_feat": 8, "num_block": 2, "upscale": 2}
RATE = 2e-3
CHANGES = {
    "network_g": NETWORK,
    "manual_seed": 3,
    "train": {
        "total_iter": 12,
        "warmup_iter": 2,
        "optim_g": {"type": "Adam", "lr": RATE},
        "scheduler": {
            **{"type": "CosineAnnealingRestartLR", "periods": [8, 4], "restart_weights": [1, 0.25]},
            **{"milestones": None, "gamma": None, "eta_min": 1e-6},
        },
    },
    "logger": {"save_checkpoint_freq": 5},
}


def make_photographs(folder: Path) -> Path:
    """See `make_data`; and a set that results are reported on, `tested`."""
    make_data(folder)
    for seed in (5, 6):
        write_image(folder / "tested" / "HR" / f"{seed}.png", Picture(picture((40, 36), seed)))
    return folder


def write_recipe(recipes: Path, data: Path, name: str, changes: Mapping[str, Any] | None = None) -> Path:
    """Write a recipe, all of whose paths are whole."""
    measured = {
        "datasets": {
            "train": {"name": "photos"},
            "val": {"name": "held_out", "dataroot_gt": str(data / "held_out")},
            "test": {"name": "tested", "dataroot_gt": str(data / "tested")},
        },
        "val": {"val_freq": 4, "select_on": "held_out"},
    }
    whole = merged(merged(merged(content(data), CHANGES), measured), {"name": name, **(changes or {})})
    path = recipes / f"{name}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    return path


def ship(folder: Path, name: str, updates: int, **record: Any) -> Path:
    """Put a student into the zoo that has had so many updates; its record is whole."""
    torch.manual_seed(updates)
    network = ARCHS.build(NETWORK)
    low = {"images": 2, "lr": "MATLAB bicubic", "psnr": 5.0, "ssim": 0.1}
    piece = {"from": 1, "to": updates, "known": True, "precision": "fp32", "losses": "1 L1Loss"}
    whole = {
        **{"name": name, "scale": 2, "network": json.loads(json.dumps(network.spec)), "weights": "fp32"},
        **{"parameters": 100, "multi_adds": 1e6, "updates": updates, "pieces": [piece], "seed": 3, "start": None},
        "stages": [{"start": 0, "gt_size": 32, "batch": 4}],
        "data": {"name": "photos", "images": 4, "store": "sample.store", "sha256": "ab"},
        **{"teachers": [], "losses": {"l_pix": {"type": "L1Loss", "loss_weight": 1.0}}, "objectives": {}},
        "optimizer": {"type": "Adam", "lr": RATE},
        "schedule": {"type": "CosineAnnealingRestartLR", "periods": [updates], "warmup_iter": 2},
        **{"ema_decay": 0.9, "selection": {"set": "held_out", "update": updates, "validations": 1, **low}},
        **{"figures": {"tested": low}, "notes": "Photographs of mine."},
        **record,
    }
    path = folder / f"{name}.safetensors"
    save_model(path, ModelFile(network, training=whole, card=f"# {name}\n"))
    return path
