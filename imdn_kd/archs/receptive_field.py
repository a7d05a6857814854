"""Receptive field and global pooling of any network, found by running it.

A row of NaN spreads to every output that depends on it, whatever the weights are: unlike gradients, NaN neither dies in
a ReLU nor vanishes in a deep network.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo
from imdn_kd.errors import InputError

_LENGTHS = (64, 256, 1024)
"""Lengths in px of the strips that are tried, one after the other."""

_WIDTH = 16
"""Width of a strip in px, at least."""


class Dependence(NamedTuple):
    """On what an output pixel depends; see `ModelInfo` for both."""

    receptive_radius: int | None
    global_pool_modules: tuple[str, ...]


def measure_dependence(network: nn.Module, info: ModelInfo) -> Dependence:
    """Measure receptive field and global pooling of a copy of `network` on the CPU, in fp32.

    The radius is exact for what is built of convolutions and of operators on single pixels; others, as bilinear
    interpolation, may appear to reach one pixel further than they do. It is None where the network depends on more than
    500 px around, or on where in the image a pixel lies (as networks do that cut the image into windows themselves).

    Args:
        network: any module.
        info: its scale, sizes and channels.

    Raises:
        InputError: the network makes values that are not finite.
    """
    if any(parameter.is_meta for parameter in network.parameters()):
        return Dependence(None, ())
    probe = copy.deepcopy(network).to("cpu", torch.float32).eval()
    name = type(network).__name__
    with torch.no_grad(), _without_onednn():
        if not probe(_strip(info, _LENGTHS[0], 0)).isfinite().all():
            raise InputError(
                f"{name} makes values that are not finite; give it weights that were trained, or correct it",
                code="model.not-finite",
            )
        for length in _LENGTHS:
            found = _on_strips(probe, info, length)
            # What a short strip hides, and what only seems to pool globally on it, shows on a longer one.
            if found.receptive_radius is not None and not found.global_pool_modules and _can_be_cut(probe, info, found):
                return found
    return found if found.global_pool_modules else Dependence(None, ())


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Its Winograd convolutions would spread NaN over whole tiles."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # on GPUs that nobody has asked for
        with torch.backends.mkldnn.flags(enabled=False):
            yield


def _on_strips(probe: nn.Module, info: ModelInfo, length: int) -> Dependence:
    """Dependence on rows and columns."""
    both = [_on_strip(probe, info, length, dimension) for dimension in (0, 1)]
    pools = dict.fromkeys(path for each in both for path in each.global_pool_modules)
    radii = [each.receptive_radius for each in both if each.receptive_radius is not None]
    return Dependence(max(radii) if len(radii) == len(both) else None, tuple(pools))


def _on_strip(probe: nn.Module, info: ModelInfo, length: int, dimension: int) -> Dependence:
    step, image = info.size_multiple, _strip(info, length, dimension)
    length = image.shape[2 + dimension]
    centre = length // 2 // step * step
    image.narrow(2 + dimension, centre, step).fill_(math.nan)
    with _global_pooling(probe) as pools:
        lost = probe(image).isnan()
    reached = lost.any(3 - dimension).any(1).any(0).nonzero().flatten()
    if not len(reached) or reached[0] == 0 or reached[-1] == info.scale * length - 1:
        return Dependence(None, tuple(pools))
    before = centre - int(reached[0]) // info.scale
    after = -(-(int(reached[-1]) + 1) // info.scale) - (centre + step)
    return Dependence(_round_up(max(before, after, 0), step), tuple(pools))


@contextmanager
def _global_pooling(probe: nn.Module) -> Iterator[list[str]]:
    """Collect the paths of the innermost modules that spread NaN over the whole map.

    What they make is replaced as if the statistics over the map were fixed numbers, so NaN stays where it came from.
    """
    pools: list[str] = []

    def hook(path: str, _: nn.Module, inputs: tuple[Any, ...], output: object) -> Tensor | None:
        given = next((each.isnan() for each in inputs if isinstance(each, Tensor)), None)
        if given is None or not isinstance(output, Tensor) or not given.any() or given.all():
            return None
        if not output.isnan().all():
            return None
        if path not in pools:
            pools.append(path)
        held = torch.zeros_like(output)
        if given.shape == output.shape:
            return held.masked_fill(given, math.nan)
        if given.dim() == output.dim() == 4 and given.shape[2:] == output.shape[2:]:
            return held.masked_fill(given.any(1, keepdim=True), math.nan)
        return held

    handles = [module.register_forward_hook(partial(hook, path)) for path, module in probe.named_modules()]
    try:
        yield pools
    finally:
        for handle in handles:
            handle.remove()


def _can_be_cut(probe: nn.Module, info: ModelInfo, found: Dependence) -> bool:
    """Whether two crops that overlap by the radius give what the whole image gives, along both dimensions."""
    step, radius = info.size_multiple, found.receptive_radius or 0
    for dimension in (0, 1):
        image = _strip(info, 2 * (radius + max(info.min_size, 32)) + 7 * step, dimension)
        along, length = 2 + dimension, image.shape[2 + dimension]
        cut = _round_up(length // 2, step) + step  # not in the middle, where windows of the network may end too
        first = probe(image.narrow(along, 0, cut + radius)).narrow(along, 0, info.scale * cut)
        second = probe(image.narrow(along, cut - radius, length - cut + radius))
        second = second.narrow(along, info.scale * radius, info.scale * (length - cut))
        whole = probe(image)
        if (torch.cat((first, second), along) - whole).abs().max() > 1e-4 * whole.abs().max():
            return False
    return True


def _strip(info: ModelInfo, length: int, dimension: int) -> Tensor:
    """Noise in [0, 1], of about this length and as narrow as the network takes."""
    sides = [_round_up(max(side, info.min_size), info.size_multiple) for side in (length, _WIDTH)]
    height, width = sides if dimension == 0 else reversed(sides)
    return torch.rand(1, info.num_in_ch, height, width, generator=torch.Generator().manual_seed(0))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
