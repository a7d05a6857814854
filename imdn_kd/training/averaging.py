"""The exponential running average of the weights (EMA), which is what is validated and saved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def running_average(network: nn.Module, decay: float, device: torch.device) -> AveragedModel:
    """Return a copy of a network whose parameters and buffers follow it: `decay` of the old, the rest of the new.

    The first `update_parameters` takes the weights as they are.

    Args:
        network: copied.
        decay: in [0, 1).
        device: where the average is kept.
    """
    return AveragedModel(network, device=device, multi_avg_fn=_average(decay), use_buffers=True)


def _average(decay: float) -> Callable[[Any, Any, Any], None]:
    lerp = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]

    def average(kept: list[Tensor], new: list[Tensor], count: Tensor | int) -> None:
        if kept[0].is_floating_point():
            lerp(kept, new, count)
            return
        # Whole numbers, as indices and counters, have no averages.
        for old, current in zip(kept, new, strict=True):
            old.copy_(current)

    return average
