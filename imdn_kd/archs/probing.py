"""Scale and sizes of a network that does not state them, found by running it."""

from __future__ import annotations

import copy
from contextlib import suppress

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.errors import InputError

_SIDES = (48, 64, 60, 56, 72, 88, 104)
"""Sides in px that are tried first: each of 1 to 16, 20 to 24, 26, 28, 30 and 32 divides one of them."""


def info_of(network: nn.Module, num_in_ch: int | None = None) -> ModelInfo:
    """What a network states about itself, or else what `measure_info` finds.

    Args:
        network: any module that upscales images.
        num_in_ch: channels of its images; by default 3, or what the first convolution takes.

    Raises:
        InputError: see `measure_info`.
    """
    if isinstance(network, SRNetwork):
        return network.info
    first = next((module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)), 3)
    candidates = [num_in_ch] if num_in_ch is not None else list(dict.fromkeys((3, first)))
    for channels in candidates:
        with suppress(InputError):
            return measure_info(network, channels)
    return measure_info(network, candidates[0])  # again, for what it says


def measure_info(network: nn.Module, num_in_ch: int) -> ModelInfo:
    """Find scale and sizes by running a copy of `network` on a few images.

    This happens on PyTorch's `meta` device, which computes shapes alone, or with numbers on the CPU where the network
    cannot do with that. The receptive field stays unknown; see `receptive_field.measure_dependence` for it.

    Args:
        network: from N x C x H x W to N x C x sH x sW, s a whole number; what else it is given is refused.
        num_in_ch: C.

    Raises:
        InputError: it is something else, or it takes images of one size only.
    """
    name = type(network).__name__
    probe, side = _working_probe(network, num_in_ch)
    shape = probe.shape_for(side, side)
    if shape is None or len(shape) != 4 or shape[1] != num_in_ch or shape[2] != shape[3] or shape[2] % side:
        result = f"{'x'.join(map(str, shape))}" if shape else "something else than a tensor"
        raise _refusal(name, f"it makes {result} of 1x{num_in_ch}x{side}x{side}")
    scale = shape[2] // side

    def fits(height: int, width: int) -> bool:
        return probe.shape_for(height, width) == (1, num_in_ch, scale * height, scale * width)

    # A step that divides `side`, which works, and leads to another side that works, is a multiple of the smallest one.
    multiples = (step for step in range(1, side + 1) if side % step == 0 and fits(side, side + step))
    multiple = next(multiples, None)
    if multiple is None:
        raise _refusal(name, f"it was built for images of one size only ({side}x{side} px)")
    smallest = next(s for s in range(multiple, side + 1, multiple) if fits(s, s))
    pools = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
    return ModelInfo(
        scale=scale,
        size_multiple=multiple,
        min_size=smallest,
        receptive_radius=None,
        global_pool_modules=tuple(path for path, module in network.named_modules() if isinstance(module, pools)),
        num_in_ch=num_in_ch,
    )


class _Probe:
    """Runs a copy of a network on black images; `error` is what the last one that failed said."""

    def __init__(self, network: nn.Module, num_in_ch: int, device: str) -> None:
        self._network = copy.deepcopy(network).to(device).eval()
        self._num_in_ch, self._device = num_in_ch, device
        self.error: Exception | None = None

    @torch.no_grad()
    def shape_for(self, height: int, width: int) -> tuple[int, ...] | None:
        """Shape of the result, () if that is no tensor, None if the network fails."""
        image = torch.zeros(1, self._num_in_ch, height, width, device=self._device)
        try:
            result = self._network(image)
        except Exception as error:  # whatever a network of others meets first: RuntimeError, AssertionError, ...
            self.error = error
            return None
        return tuple(result.shape) if isinstance(result, Tensor) else ()


def _working_probe(network: nn.Module, num_in_ch: int) -> tuple[_Probe, int]:
    """A probe, and a side that its network takes."""
    on_meta = any(parameter.is_meta for parameter in network.parameters())
    for device in ("meta",) if on_meta else ("meta", "cpu"):
        probe = _Probe(network, num_in_ch, device)
        for side in _SIDES:
            if probe.shape_for(side, side) is not None:
                return probe, side
    raise _refusal(
        type(network).__name__, f"it fails on images 1x{num_in_ch}xHxW ({type(probe.error).__name__}: {probe.error})"
    )


def _refusal(name: str, reason: str) -> InputError:
    return InputError(
        f"{name} cannot be used for the super-resolution of single images: {' '.join(reason.split())}; "
        "correct its options or choose another network",
        code="model.not-super-resolution",
    )
