"""The base class of all super-resolution networks, and what a network states about itself."""

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
class ModelInfo:
    """What a network states about itself, so that it can be run on any image and on parts of one.

    Attributes:
        scale: output side / input side.
        size_multiple: input sides must be multiples of this.
        min_size: smallest input side, px.
        receptive_radius: radius of the receptive field in input px (a multiple of `size_multiple`), with the statistics
            of global poolings held fixed: no output pixel depends on an input pixel further away. None: unknown, so
            only the whole image gives the exact result.
        global_pool_modules: paths of the modules that pool over the whole map.
        num_in_ch: channels of the input and of the output.
        enlarged_input: at scale 1: whether the input is to be an image that was enlarged to the size of the result, as
            for IMDN_AS, rather than one that is restored as it is.
    """

    scale: int
    size_multiple: int = 1
    min_size: int = 1
    receptive_radius: int | None = 0
    global_pool_modules: tuple[str, ...] = ()
    num_in_ch: int = 3
    enlarged_input: bool = False

    def __str__(self) -> str:
        """All of it in one readable line."""
        step = f" in steps of {self.size_multiple} px" if self.size_multiple > 1 else ""
        field = "unknown" if self.receptive_radius is None else f"{self.receptive_radius} px around a pixel"
        pools = ", ".join(path or "the network itself" for path in self.global_pool_modules)
        return (
            f"x{self.scale}, {self.num_in_ch} channels, sides from {self.min_size} px{step}, receptive field {field}, "
            f"{f'global pooling in {pools}' if pools else 'no global pooling'}"
        )


@dataclass(frozen=True)
class Segment:
    """The part of a network between two global poolings: in it, an output depends on nearby input only.

    Attributes:
        reads: names of the features needed. `image` is the input of the network.
        run: takes these features (N x C x h x w each) and the statistics asked for by the segment before; returns the
            features it makes. The last segment of a network makes `sr`.
        receptive_radius: radius of the receptive field of this part, in px of the input image (a multiple of
            `size_multiple`).
        global_stat: the feature made here whose statistics over the whole map the next segment needs.
    """

    reads: tuple[str, ...]
    run: Callable[[Mapping[str, Tensor], Statistics | None], dict[str, Tensor]]
    receptive_radius: int
    global_stat: str | None = None


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
    def info(self) -> ModelInfo:
        """Scale, sizes, receptive field and global poolings of this network."""

    def segments(self) -> list[Segment]:
        """Cut the network at its global poolings, so that it can be run over crops of an image with the exact result.

        By default the whole network is one segment, as fits a network without global pooling. A network whose receptive
        field is unknown has no segments: it cannot be run over crops.
        """
        receptive_radius = self.info.receptive_radius
        return [] if receptive_radius is None else one_segment(self, receptive_radius)


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """A block without mixed precision; does nothing on devices that have none, such as meta."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def one_segment(network: Callable[[Tensor], Tensor], receptive_radius: int) -> list[Segment]:
    """A whole network as a single segment; `receptive_radius` as in `Segment`."""
    return [
        Segment(
            reads=("image",),
            run=lambda features, _: {"sr": network(features["image"])},
            receptive_radius=receptive_radius,
        )
    ]


def _listed(value: Any) -> Any:  # noqa: ANN401 - numbers, strings, and lists of these
    return [_listed(part) for part in value] if isinstance(value, (list, tuple)) else value
