"""8-bit arithmetic, simulated: convolutions whose inputs and kernels are rounded to 8 bits (fake quantisation).

Inputs are rounded to 256 equal steps of a fixed range for the whole map, kernels to 255 steps for each output channel,
symmetric about 0, as int8 runtimes multiply them. Sums stay in fp32, as do residual connections, the enlarged input and
the output: what these lose can be seen. Exported to ONNX, each becomes QuantizeLinear and DequantizeLinear (QDQ), which
runtimes turn into int8 arithmetic.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, https://arxiv.org/abs/1712.05877.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import without_autocast
from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line

Range = tuple[float, float]
"""The least and the greatest value of the inputs of a convolution; 0 lies between them."""

RANGE = "input_range"
_LEVELS = 255
_TINY = 1e-12


class QuantizedConv2d(nn.Conv2d):
    """A convolution that runs in 8 bits; made by `quantize`. Gradients pass through the rounding (straight-through)."""

    input_range: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        with without_autocast(x.device):
            rounded = self._round_input(x.float())
            kernel = self._round_kernel(self.weight.float())
        result: Tensor = self._conv_forward(rounded.to(x.dtype), kernel.to(self.weight.dtype), self.bias)
        return result

    def _round_input(self, x: Tensor) -> Tensor:
        low, high = _constant(self.input_range.float()).unbind()
        step = ((high - low) / _LEVELS).clamp_min(_TINY)
        zero = _constant((-low / step).round()).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(x, _constant(step), zero, 0, _LEVELS)

    def _round_kernel(self, kernel: Tensor) -> Tensor:
        step = (kernel.detach().abs().amax((1, 2, 3)) / (_LEVELS // 2)).clamp_min(_TINY)
        zero = torch.zeros(len(step), dtype=torch.int32, device=step.device)
        return torch.fake_quantize_per_channel_affine(kernel, _constant(step), zero, 0, -128, 127)


def quantizable(network: nn.Module, float_layers: Iterable[str] = ()) -> list[str]:
    """Paths of the convolutions that can run in 8 bits: those of PyTorch's own kind, not classes derived from it.

    Args:
        network: any module.
        float_layers: paths of convolutions that stay in floating point, or of modules around them.

    Raises:
        InputError: `quantize.unknown-layer`, there is no such path; `quantize.nothing`, no convolution is left.
    """
    left_out = [*float_layers]
    paths = {path for path, _ in network.named_modules()}
    for path in left_out:
        if path not in paths:
            raise InputError(
                f"{one_line(path)!r} is no layer of the network; give paths such as {', '.join(_examples(network))}",
                code="quantize.unknown-layer",
            )
    found = [
        path
        for path in _convolutions(network)
        if not any(path == outer or path.startswith(f"{outer}.") for outer in left_out)
    ]
    if not found:
        raise InputError("the network has no convolution that could run in 8 bits", code="quantize.nothing")
    return found


def observe_ranges(network: nn.Module, images: Iterable[Tensor], layers: Iterable[str]) -> dict[str, Range]:
    """Run images through a network and note the extremes of the inputs of convolutions.

    Not percentiles, nor means over images: in these networks the few largest values carry the edges and the whites.
    Left out are convolutions that did not run, and those that cost little: of the image itself, whose bright pixels
    overflow the 16-bit sums of processors without int8 units, and of single pixels, as in channel attention.

    Args:
        network: in the state in which its results count.
        images: N x C x H x W each, as the network takes them.
        layers: paths of convolutions.

    Returns:
        A range for each path.
    """
    found: dict[str, Range] = {}

    def note(path: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if x is image or x.shape[2:] == (1, 1):
            return
        low, high = found.get(path, (0.0, 0.0))
        found[path] = min(low, float(x.min())), max(high, float(x.max()))

    with ExitStack() as stack:
        for path in layers:
            handle = network.get_submodule(path).register_forward_pre_hook(partial(note, path))
            stack.callback(handle.remove)
        with torch.no_grad():
            for image in images:
                network(image)
    return found


def quantize(network: nn.Module, ranges: Mapping[str, Range]) -> nn.Module:
    """Let convolutions run in 8 bits, in place; their parameters, paths and hooks stay.

    Args:
        network: any module.
        ranges: of the inputs, by the paths of the convolutions; see `observe_ranges`. Those of convolutions that run in
            8 bits already are replaced.

    Returns:
        `network`.
    """
    for path, (low, high) in ranges.items():
        module = network.get_submodule(path)
        if not isinstance(module, nn.Conv2d) or type(module) not in (nn.Conv2d, QuantizedConv2d):
            raise TypeError(f"{path} is a {type(module).__name__}, which has no counterpart in 8 bits")
        module.__class__ = QuantizedConv2d
        module.register_buffer(RANGE, torch.tensor((low, high), device=module.weight.device))
    return network


def ranges_of(weights: Mapping[str, Tensor]) -> dict[str, Range]:
    """The ranges in the `state_dict` of a network that runs in 8 bits, by the paths of its convolutions."""
    found = ((key.rpartition("."), value) for key, value in weights.items())
    return {path: (float(value[0]), float(value[1])) for (path, _, name), value in found if name == RANGE}


def without_ranges(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights alone of the `state_dict` of a network that runs in 8 bits."""
    return {key: value for key, value in weights.items() if key.rpartition(".")[2] != RANGE}


def _convolutions(network: nn.Module) -> list[str]:
    return [path for path, module in network.named_modules() if type(module) in (nn.Conv2d, QuantizedConv2d)]


def _examples(network: nn.Module) -> list[str]:
    return _convolutions(network)[:3] or ["(there are none)"]


def _constant(value: Tensor) -> Tensor:
    """The value itself in a traced graph, rather than how it is computed: runtimes need to know steps beforehand."""
    return torch.tensor(value.tolist()) if torch.onnx.is_in_onnx_export() else value
