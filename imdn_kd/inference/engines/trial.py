"""An engine tried on a network: whether its results are those of PyTorch, and how long it takes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.quantize import QuantizedConv2d
from imdn_kd.inference.engines.base import Engine
from imdn_kd.inference.engines.compiled import CompiledNetwork
from imdn_kd.inference.tiles import round_up

TOLERANCES = {"fp32": 1e-4, "bf16": 1 / 16, "fp16": 1 / 128}
"""How far results may be from those of PyTorch in fp32 on random pixels, of the range of the image, by precision."""

_TOLERANCE_OF_8_BITS = 1 / 16
"""For networks in 8 bits: a rounding that falls the other way moves a few pixels by several levels."""

SIDES = ((40, 56), (96, 128))
"""Sizes in px on which results are compared."""

TIMED = (180, 320)
"""The size in px that is timed: maps of features do not fit into the cache of a core, where they do ncnn is fast."""


def tolerance(network: nn.Module, precision: str) -> float:
    """How far results of an engine may be from those of PyTorch, of the range of the image."""
    in_8_bits = any(isinstance(part, QuantizedConv2d) for part in network.modules())
    return max(TOLERANCES[precision], _TOLERANCE_OF_8_BITS if in_8_bits else 0)


class Trial:
    """An engine tried on a network in fp32 on the CPU, for images from 0 to `value_range`.

    Attributes:
        error: its largest difference from PyTorch, of the range of the image; for 8-bit pixels beyond the rounding.
    """

    def __init__(self, engine: Engine, network: nn.Module, info: ModelInfo, value_range: float) -> None:
        self._compiled = CompiledNetwork(engine, network, info)
        self._images = _images(info, value_range, SIDES)
        self._timed = partial(_images, info, value_range, (TIMED,))
        with torch.no_grad():
            expected = [network(image) / value_range for image in self._images]
            results = [self._compiled(image) / value_range for image in self._images]
            differences = [(ours - theirs).abs().max() for ours, theirs in zip(results, expected, strict=True)]
            if self._compiled.takes_pixels:
                levels = (255 * self._images[0] / value_range).round()
                exact = (network(levels * (value_range / 255)) * (255 / value_range)).clamp(0, 255)
                ours = self._compiled.pixels(levels.byte(), value_range)
                differences.append(((ours - exact).abs().max() - 0.5).clamp(min=0) / 255)
        # Not Python's max, which passes over NaN.
        self.error = float(torch.stack(differences).max())

    def seconds(self) -> float:
        """For an image of the size that is timed."""
        (image,) = self._timed()
        return _shortest(lambda: self._compiled(image))


def seconds_of_torch(network: nn.Module, info: ModelInfo, value_range: float, dtype: torch.dtype) -> float:
    """What PyTorch takes for the same image in `dtype`."""
    image = _images(info, value_range, (TIMED,))[0].to(dtype).contiguous(memory_format=torch.channels_last)
    if dtype != torch.float32:
        network = copy.deepcopy(network).to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        return _shortest(lambda: network(image))


def _shortest(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _images(info: ModelInfo, value_range: float, sides: Sequence[tuple[int, int]]) -> list[Tensor]:
    step, smallest = info.size_multiple, info.min_size
    sizes = [[round_up(max(smallest, side), step) for side in each] for each in sides]
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((1, info.num_in_ch, *size), generator=generator) * value_range for size in sizes]
