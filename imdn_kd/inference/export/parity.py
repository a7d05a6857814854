"""Parity: how far an exported network is from PyTorch, on photographs cut to many sizes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.photographs import Photograph
from imdn_kd.inference.sizes import Size
from imdn_kd.inference.tiles import round_up

SIZES = 22
"""How many sizes are compared."""

_TIMED = (96, 128)
"""Size in px of the image that is timed."""

_REPEATS = 3


@dataclass(frozen=True)
class SizeParity:
    """What was found at one size: the largest difference and the mean squared one, of the range and of its square."""

    size: Size
    difference: float
    mse: float

    @property
    def psnr(self) -> float:
        """PSNR, dB."""
        return _psnr(self.mse)


@dataclass(frozen=True)
class Parity:
    """How far an exported network is from PyTorch.

    Attributes:
        sizes: what was found at each size (height, width) in px, the smallest size first.
        timed: size of the image that was timed.
        torch_seconds: of PyTorch for it, the least of several runs.
        runtime_seconds: of the runtime of the file for it.
    """

    sizes: tuple[SizeParity, ...]
    timed: Size
    torch_seconds: float
    runtime_seconds: float

    @property
    def difference(self) -> float:
        """The largest difference, of the range; NaN if any is."""
        return float(np.max([each.difference for each in self.sizes]))

    @property
    def psnr(self) -> float:
        """PSNR of all sizes together, dB."""
        return _psnr(float(np.mean([each.mse for each in self.sizes])))


def measure_parity(
    network: SRNetwork,
    run: Run,
    info: ModelInfo,
    value_range: float,
    photographs: Sequence[Photograph],
    on_size: Callable[[], object] = lambda: None,
) -> Parity:
    """Compare what `run` makes with what `network` makes, in evaluation mode on the CPU.

    Args:
        network: in PyTorch.
        run: the exported network.
        info: of the exported network.
        value_range: of its images.
        photographs: at least one, of any size; cut in turn, and repeated where they are too small.
        on_size: called after each size, and after the timing.
    """
    found = []
    for number, size in enumerate(parity_sizes(info)):
        image = _cut(photographs[number % len(photographs)], size, info, value_range)
        found.append(_compare(network, run, image, value_range))
        on_size()
    size = _fitting(_TIMED, info)
    image = _cut(photographs[0], size, info, value_range)
    seconds = _seconds(network, run, image)
    on_size()
    return Parity(tuple(found), size, *seconds)


def parity_sizes(info: ModelInfo) -> list[Size]:
    """`SIZES` different sizes that a network takes: the smallest, narrow ones, and some drawn by chance."""
    smallest, step = _fitting((1, 1), info)[0], info.size_multiple
    top = max(5, 96 // step)
    sizes = dict.fromkeys([(0, 0), (0, 1), (1, 0), (0, top), (top, 0), (top, top // 2)])
    numbers = np.random.default_rng(0)
    while len(sizes) < SIZES:
        rows, columns = map(int, numbers.integers(0, top, 2, endpoint=True))
        sizes[rows, columns] = None
    return [(smallest + step * rows, smallest + step * columns) for rows, columns in sizes]


def _psnr(mse: float) -> float:
    return math.inf if mse == 0 else -10 * math.log10(mse)


def _fitting(size: Size, info: ModelInfo) -> Size:
    height, width = (round_up(max(side, info.min_size), info.size_multiple) for side in size)
    return height, width


def _cut(photograph: Photograph, size: Size, info: ModelInfo, value_range: float) -> Tensor:
    """The middle of a photograph as an image for a network, 1 x C x H x W."""
    lacking = [max(0, wanted - given) for wanted, given in zip(size, photograph.shape[:2], strict=True)]
    pixels = np.pad(photograph, [(0, lacking[0]), (0, lacking[1]), (0, 0)], mode="wrap")
    top, left = ((given - wanted) // 2 for wanted, given in zip(size, pixels.shape[:2], strict=True))
    cut = torch.from_numpy(pixels[top : top + size[0], left : left + size[1]].copy()).permute(2, 0, 1)[None]
    image = cut.float() * (value_range / 255)
    return (
        image if info.num_in_ch == 3 else image.mean(1, keepdim=True).expand(-1, info.num_in_ch, -1, -1)
    ).contiguous()


def _compare(network: SRNetwork, run: Run, image: Tensor, value_range: float) -> SizeParity:
    size = (image.shape[2], image.shape[3])
    with torch.no_grad():
        expected = network(image).numpy()
    found = run(image.numpy())
    if found.shape != expected.shape:
        return SizeParity(size, math.nan, math.nan)
    error = np.abs(found - expected.astype(np.float64)) / value_range
    return SizeParity(size, float(error.max()), float((error**2).mean()))


def _seconds(network: SRNetwork, run: Run, image: Tensor) -> tuple[float, float]:
    """Of PyTorch and of the runtime, in turn."""
    array = image.numpy()

    def timed() -> Iterator[tuple[float, float]]:
        for _ in range(_REPEATS):
            start = time.perf_counter()
            with torch.no_grad():
                network(image)
            middle = time.perf_counter()
            run(array)
            yield middle - start, time.perf_counter() - middle

    ours, theirs = zip(*timed(), strict=True)
    return min(ours), min(theirs)
