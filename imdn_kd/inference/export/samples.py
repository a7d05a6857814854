"""Images on which graphs are made."""

from __future__ import annotations

import torch
from torch import Tensor

from imdn_kd.archs.base import ModelInfo
from imdn_kd.inference.tiles import round_up


def sample(info: ModelInfo, *, side: int = 32, wider: int = 1) -> Tensor:
    """A random image that a network takes, about `side` px high, and wider by so many multiples."""
    height = round_up(max(side, info.min_size), info.size_multiple)
    generator = torch.Generator().manual_seed(0)
    return torch.rand((1, info.num_in_ch, height, height + wider * info.size_multiple), generator=generator)
