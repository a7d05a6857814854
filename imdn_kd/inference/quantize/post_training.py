"""`quantize_model`: let a trained model run in 8 bits, calibrated on photographs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.quantize import Range, observe_ranges, quantizable, quantize, ranges_of
from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import ModelFile
from imdn_kd.inference.tiles import round_up

WANTED_PSNR = 50.0
"""Convolutions stay in floating point, the most harmful ones first, until the result has so many dB to that of fp32."""

TILES = 24
_SIDE = 64
_JUDGED = 6  # tiles on which the loss is measured

Pixels = npt.NDArray[np.uint8]


def quantize_model(model: ModelFile, photographs: Sequence[Pixels]) -> ModelFile:
    """Return the model with as many of its convolutions in 8 bits as its results allow; see `WANTED_PSNR`.

    A convolution of the image itself stays in floating point, see `observe_ranges`.

    Args:
        model: in floating point. One that has ranges already is returned as it is.
        photographs: H x W x 3, like those that will be upscaled; parts of them of 64 px are looked at.

    Raises:
        InputError: `quantize.too-few-pixels`; `quantize.nothing`, no convolution can run in 8 bits.
    """
    if ranges_of(model.network.state_dict()):
        return model
    if sum(photograph.shape[0] * photograph.shape[1] for photograph in photographs) < _SIDE**2:
        raise InputError(
            f"8 bits are calibrated on photographs of {_SIDE}x{_SIDE} px at least; give some like those to be upscaled",
            code="quantize.too-few-pixels",
        )
    network = model.network.eval()
    tiles = _tiles(photographs, network.info, model.value_range)
    ranges = observe_ranges(network, tiles, quantizable(network))
    if not ranges:
        raise InputError(
            "no convolution of the network but one of the image can run in 8 bits", code="quantize.nothing"
        )
    return replace(model, network=quantized(network, _kept(network, ranges, tiles[:_JUDGED], model.value_range)))


def quantized(network: SRNetwork, ranges: Mapping[str, Range]) -> SRNetwork:
    """A copy of a network with convolutions in 8 bits."""
    result = copy.deepcopy(network)
    quantize(result, ranges)
    return result


def _kept(
    network: SRNetwork, ranges: dict[str, Range], tiles: Sequence[Tensor], value_range: float
) -> dict[str, Range]:
    """The ranges of the convolutions that run in 8 bits."""

    def loss(of: Mapping[str, Range]) -> float:
        return _mse(quantized(network, of), expected, tiles) / value_range**2

    with torch.no_grad():
        expected = [network(tile) for tile in tiles]
    allowed = 10 ** (-WANTED_PSNR / 10)
    if loss(ranges) <= allowed:
        return ranges
    harm = {path: loss({path: found}) for path, found in ranges.items()}
    worst = sorted(harm, key=harm.__getitem__, reverse=True)
    for count in range(1, len(worst)):
        kept = {path: found for path, found in ranges.items() if path not in worst[:count]}
        if loss(kept) <= allowed:
            return kept
    return {worst[-1]: ranges[worst[-1]]}


def _mse(network: SRNetwork, expected: Sequence[Tensor], tiles: Sequence[Tensor]) -> float:
    with torch.no_grad():
        errors = [(network(tile) - sr).square().mean() for tile, sr in zip(tiles, expected, strict=True)]
    return float(torch.stack(errors).mean())


def _tiles(photographs: Sequence[Pixels], info: ModelInfo, value_range: float) -> list[Tensor]:
    """Parts of the photographs at random places, the same ones each time; small photographs are mirrored."""
    side = round_up(max(_SIDE, info.min_size), info.size_multiple)
    random = np.random.default_rng(0)
    return [
        _as_input(_part(photographs[number % len(photographs)], side, random), info, value_range)
        for number in range(max(TILES, len(photographs)))
    ]


def _part(pixels: Pixels, side: int, random: np.random.Generator) -> Pixels:
    top, left = (int(random.integers(0, max(1, length - side + 1))) for length in pixels.shape[:2])
    part = pixels[top : top + side, left : left + side]
    missing = [(0, side - length) for length in part.shape[:2]]
    return np.pad(part, [*missing, (0, 0)], mode="symmetric")


def _as_input(part: Pixels, info: ModelInfo, value_range: float) -> Tensor:
    planes: Any = part.transpose(2, 0, 1)[np.arange(info.num_in_ch) % 3]
    return torch.from_numpy(np.ascontiguousarray(planes[None], dtype=np.float32)) * (value_range / 255)
