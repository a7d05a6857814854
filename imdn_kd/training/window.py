"""Means of the losses from one line of the log to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor


class LossWindow:
    """Sums losses where they are computed, without waiting for the device.

    Args:
        saved: what `state` gave.
    """

    def __init__(self, saved: Mapping[str, Any] | None = None) -> None:
        saved = saved or {}
        self._sums: dict[str, Tensor | float] = dict(saved.get("sums", {}))
        self._count: int = saved.get("count", 0)

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of an update, by name; scalars."""
        for name, loss in losses.items():
            value = loss.detach()
            # MPS has no float64.
            value = value.cpu() if value.device.type == "mps" else value
            self._sums[name] = self._sums.get(name, 0.0) + value.double()
        self._count += 1

    def take(self, accelerator: Accelerator) -> dict[str, float]:
        """Return the means over all updates and processes, and begin anew; empty if there were no updates."""
        means = {name: value / self._count for name, value in self._over_processes(accelerator).items()}
        self._sums, self._count = {}, 0
        return means

    def state(self, accelerator: Accelerator) -> dict[str, Any]:
        """What a new window needs to go on; every process must ask for it."""
        self._sums = dict(self._over_processes(accelerator))
        return {"sums": dict(self._sums), "count": self._count}

    def _over_processes(self, accelerator: Accelerator) -> dict[str, float]:
        if not self._sums:
            return {}
        values = torch.stack([torch.as_tensor(value, dtype=torch.float64) for value in self._sums.values()])
        if accelerator.num_processes > 1:
            values = accelerator.reduce(values.to(accelerator.device), reduction="mean")
        return dict(zip(self._sums, values.tolist(), strict=True))
