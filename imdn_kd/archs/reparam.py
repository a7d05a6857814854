"""Re-parameterised training: 3x3 convolutions are trained as wider linear blocks and saved as plain convolutions.

After the collapsible linear blocks of SESR (Bhardwaj et al., MLSys 2022, https://arxiv.org/abs/2103.09404): a 3x3
convolution to many channels, a 1x1 convolution back, and a plain 3x3 convolution beside both make one linear map. Its
kernel is computed first, so the network itself runs as a chain of single convolutions in training too.

With the edge operators of ECBSR (Zhang et al., ACM Multimedia 2021, https://doi.org/10.1145/3474085.3475291), three
more branches are 1x1 convolutions followed by a fixed filter: both Sobel operators and the Laplacian. ECBSR has biases
in its branches, and a 1x1 convolution before the 3x3 one rather than behind it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from imdn_kd.archs.base import without_autocast

WEIGHT = "weight"

_SOBEL_X = [[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]
_SOBEL_Y = [[1.0, 2.0, 1.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]
_LAPLACE = [[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]
_EDGE_SCALE = 1e-3
"""Standard deviation of the first scales of the edge operators, as in ECBSR."""


class LinearBlock(nn.Module):
    """The kernel of a 3x3 convolution as the sum of a plain branch, a two-layer branch and, if wanted, edge operators.

    Args:
        weight: O x I x 3 x 3, the kernel that the sum starts from.
        width: hidden channels per channel: there are `width` * max(O, I) between the two layers.
        edge_operators: whether there are any.
        generator: of the first values of the branches.
    """

    def __init__(self, weight: Tensor, width: int, *, edge_operators: bool, generator: torch.Generator) -> None:
        super().__init__()
        channels_out, fan_in = weight.shape[0], weight[0].numel()
        hidden = width * max(weight.shape[:2])
        self.expand = nn.Parameter(_uniform((hidden, fan_in), generator).to(weight))
        self.project = nn.Parameter(_uniform((channels_out, hidden), generator).to(weight))
        filters = (_SOBEL_X, _SOBEL_Y, _LAPLACE) if edge_operators else ()
        self.edge_operators = nn.ModuleList(_EdgeOperator(each, weight, generator) for each in filters)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the kernel that the convolution runs with; `weight`: that of the plain branch."""
        return weight + self._beside(weight)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return the weight of the plain branch with which the kernel is `weight`."""
        return weight - self._beside(weight).detach()

    def _beside(self, weight: Tensor) -> Tensor:
        """The kernel of the branches beside the plain one."""
        # Outside of autocast: the kernel would be rounded twice.
        with without_autocast(weight.device):
            kernel = (self.project @ self.expand).view(weight.shape)
            for operator in self.edge_operators:
                kernel = kernel + operator()
            return kernel


class _EdgeOperator(nn.Module):
    """The kernel, O x I x 3 x 3, of a 1x1 convolution and a fixed filter of each channel, scaled."""

    edge_filter: Tensor

    def __init__(self, edge_filter: list[list[float]], weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        # A constant, so not in `state_dict`.
        self.register_buffer("edge_filter", torch.tensor(edge_filter).to(weight), persistent=False)
        channels_out, channels_in = weight.shape[:2]
        self.mix = nn.Parameter(_uniform((channels_out, channels_in), generator).to(weight))
        self.scale = nn.Parameter((_EDGE_SCALE * torch.randn(channels_out, generator=generator)).to(weight))

    def forward(self) -> Tensor:
        return torch.einsum("o,oi,yx->oiyx", self.scale, self.mix, self.edge_filter)


def expand(network: nn.Module, *, width: int = 4, edge_operators: bool = False, seed: int = 0) -> nn.Module:
    """Give every 3x3 convolution of `network` its training form, in place; results stay what they are, to rounding.

    Modules keep their class behaviour, their paths and their hooks; `parameters()` are those of the training form.

    Args:
        network: any module; convolutions in groups, and those that are expanded already, are left alone.
        width: hidden channels of a block per channel of its convolution, 1 or more.
        edge_operators: whether blocks have those of ECBSR, too.
        seed: of the first values of the blocks.

    Returns:
        `network`.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in _convolutions(network):
        weight = module.weight.detach()
        block = LinearBlock(weight, width, edge_operators=edge_operators, generator=generator)
        parametrize.register_parametrization(module, WEIGHT, block)
    return network


def collapse(network: nn.Module) -> nn.Module:
    """Undo `expand` in place: every block becomes the one convolution that it computes. Returns `network`."""
    for module in network.modules():
        if _is_expanded(module):
            kernel = module.weight.detach().clone()  # type: ignore[operator]
            # Not by `remove_parametrizations`: copies share a class, from which it would take the kernel.
            del module.parametrizations
            module.__class__ = type(module).__bases__[0]
            module.weight = nn.Parameter(kernel)
    return network


def collapsed_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the `state_dict` that `network` would have after `collapse`; it stays as it is."""
    weights = dict(network.state_dict())
    for path, module in network.named_modules():
        if _is_expanded(module):
            prefix = f"{path}." if path else ""
            for key in [key for key in weights if key.startswith(f"{prefix}parametrizations.{WEIGHT}.")]:
                del weights[key]
            weights[f"{prefix}{WEIGHT}"] = module.weight.detach()
    return weights


def can_expand(network: nn.Module) -> bool:
    """Whether `network` has a convolution that `expand` would change."""
    return any(True for _ in _convolutions(network))


def _convolutions(network: nn.Module) -> Iterator[nn.Conv2d]:
    for module in list(network.modules()):
        if not isinstance(module, nn.Conv2d) or _is_expanded(module):
            continue
        if module.kernel_size == (3, 3) and module.groups == 1:
            yield module


def _is_expanded(module: nn.Module) -> bool:
    if not parametrize.is_parametrized(module, WEIGHT):
        return False
    return any(isinstance(part, LinearBlock) for part in module.parametrizations[WEIGHT])  # type: ignore[index]


def _uniform(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """As PyTorch begins linear layers: uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(shape[1])
    return (2 * torch.rand(shape, generator=generator) - 1) * bound
