"""What every super-resolution network of the toolkit is: a module that knows its own facts."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Statistics(NamedTuple):
    """Population statistics of a feature map over all its pixels, each N x C x 1 x 1."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Facts:
    """What a caller must know to run a network on part of an image.

    Attributes:
        scale: output side / input side.
        size_multiple: input sides must be multiples of this.
        min_size: smallest input side, px.
        radius: receptive-field radius in input px (a multiple of `size_multiple`), statistics of global poolings held
            fixed: an output pixel depends on no input pixel further away. None: unknown, so that only the whole image
            gives the exact result.
        pools_globally: paths of the modules that use statistics of the whole map.
        num_in_ch: channels of the input and of the output.
    """

    scale: int
    size_multiple: int = 1
    min_size: int = 1
    radius: int | None = 0
    pools_globally: tuple[str, ...] = ()
    num_in_ch: int = 3


@dataclass(frozen=True)
class Stage:
    """One stretch of a network between two global poolings: within it, an output depends on near input only.

    Attributes:
        reads: names of the features needed. `image` is the input of the network.
        run: takes these features (N x C x h x w each) and the statistics asked for by the stage before; returns the
            features it makes. The last stage of a network makes `sr`.
        radius: how far, in px of the input image (a multiple of `size_multiple`), the outputs depend on what is read.
        pools: the feature made here whose statistics over the whole map the next stage needs.
    """

    reads: tuple[str, ...]
    run: Callable[[Mapping[str, Tensor], Statistics | None], dict[str, Tensor]]
    radius: int
    pools: str | None = None


class SRNetwork(nn.Module, ABC):
    """A network from images N x C x H x W in [0, 1] to images N x C x sH x sW, nominally in [0, 1] and not clamped.

    Constructors take keywords of plain values (numbers, strings, lists).

    Attributes:
        spec: `{"type": class, **keywords}` as the network was built, defaults included and tuples as lists, as JSON has
            them: the registry builds it again from this, and model files carry it.
    """

    spec: dict[str, Any]

    def __new__(cls, *args: Any, **keywords: Any) -> Any:  # noqa: ANN401, D102 - an instance of `cls`
        network = super().__new__(cls)
        # Partial, since copying makes an instance without arguments and fills it afterwards.
        built = inspect.signature(cls.__init__).bind_partial(network, *args, **keywords)
        built.apply_defaults()
        values = {key: _listed(value) for key, value in list(built.arguments.items())[1:]}
        network.__dict__["spec"] = {"type": cls.__name__, **values}
        return network

    @property
    @abstractmethod
    def facts(self) -> Facts:
        """Scale, sizes, receptive field and global poolings of this network."""

    def stages(self) -> list[Stage]:
        """Cut the network at its global poolings, so that it can be run over crops of an image with the exact result.

        A network without global pooling is one stage, which is what this default returns. One whose receptive field is
        unknown has no stages, since it cannot be run over crops.
        """
        radius = self.facts.radius
        return [] if radius is None else one_stage(self, radius)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A block without mixed precision; does nothing on devices that have none, such as meta."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def one_stage(network: nn.Module, radius: int) -> list[Stage]:
    """A whole network as a single stage; `radius` as in `Stage`."""
    return [Stage(reads=("image",), run=lambda features, _: {"sr": network(features["image"])}, radius=radius)]


def _listed(value: Any) -> Any:  # noqa: ANN401 - numbers, strings, and lists of these
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value
