"""A zoo of small students, with what `imdn-kd zoo publish` would have written of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from imdn_kd.archs import IMDN_RTC
from imdn_kd.inference.model_file import ModelFile, save_model

STUDENTS = (("big_x2", 2, 8, False), ("small_x2", 2, 4, True), ("only_x4", 4, 4, True))
"""Name, scale, channels, and whether it is the smallest of its scale."""


def record(name: str, scale: int, parameters: int) -> dict[str, Any]:
    """What the file of a student says of it, as far as `imdn-kd zoo list` looks."""
    sets = {"Set5": (37.125, 0.9581)} | ({"Set14": (32.5, 0.91)} if scale == 2 else {})
    return {
        "name": name,
        "scale": scale,
        "parameters": parameters,
        "multi_adds": 1000 * parameters,
        "teachers": [{"file": "IMDN_x2.pth"}] if name.startswith("big") else [],
        "selection": {"set": "kodak24", "psnr": 30.0, "ssim": 0.8},
        "figures": {data: {"psnr": psnr, "ssim": ssim} for data, (psnr, ssim) in sets.items()},
    }


def make_zoo(folder: Path) -> Path:
    entries = []
    for name, scale, channels, fast in STUDENTS:
        torch.manual_seed(0)
        network = IMDN_RTC(num_feat=channels, num_block=1, upscale=scale)
        parameters = sum(each.numel() for each in network.parameters())
        model = ModelFile(network, training=record(name, scale, parameters), card=f"# {name}\n")
        save_model(folder / f"{name}.safetensors", model)
        entries.append({"name": name, "file": f"{name}.safetensors", "scale": scale, "fast": fast})
    (folder / "index.json").write_text(json.dumps(entries))
    return folder
