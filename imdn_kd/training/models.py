"""The weights that a run leaves: as BasicSR's checkpoints, and as model files that say what they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from imdn_kd.archs.network import SRNetwork
from imdn_kd.files import atomic_path
from imdn_kd.inference.model_file import ModelFile, save_model

LATEST = "net_g_latest.safetensors"


def best_name(metric: str) -> str:
    """Name of the model file with the best value of a metric."""
    return f"net_g_best_{metric}.safetensors"


def save_checkpoint(
    folder: Path, step: int | str, params: dict[str, torch.Tensor], params_ema: dict[str, torch.Tensor] | None
) -> None:
    """Write `net_g_STEP.pth`, from which BasicSR and we can read the weights.

    Raises:
        InputError: it cannot be written.
    """
    averaged = {} if params_ema is None else {"params_ema": params_ema}
    content = {name: _on_cpu(weights) for name, weights in {"params": params, **averaged}.items()}
    with atomic_path(folder / f"net_g_{step}.pth") as temporary:
        torch.save(content, temporary)


def save_described(path: Path, network: SRNetwork, training: dict[str, Any]) -> None:
    """Write a model file; `training` says how the network was trained.

    Raises:
        InputError: it cannot be written.
    """
    lines = "\n".join(f"- {key}: {value}" for key, value in training.items())
    card = f"# {training['name']}\n\nTrained with imdn_kd.\n\n{lines}\n"
    save_model(path, ModelFile(network, training=training, card=card))


def _on_cpu(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.detach().cpu().contiguous() for key, value in weights.items()}
