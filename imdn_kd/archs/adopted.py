"""Modules of other libraries and of users as `SRNetwork`s, with their own modules, paths and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, Segment, SRNetwork


class MixedPrecision(nn.Module):
    """Runs under autocast on images of 16 bits, for networks that make fp32 tensors as they run, as attention masks."""

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        if image.dtype not in (torch.bfloat16, torch.float16):
            sr: Tensor = super().forward(image)
            return sr
        with torch.autocast(image.device.type, image.dtype):
            sr = super().forward(image)
        return sr.to(image.dtype)


class AdoptedNetwork(SRNetwork, MixedPrecision):
    """What `adopt` adds to the class of a module."""

    _info: ModelInfo

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        return self._info

    def segments(self) -> list[Segment]:
        """See `SRNetwork.segments`. There are none where the module pools globally: nobody has said how to cut it."""
        return [] if self._info.global_pool_modules else super().segments()

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        return super().forward(image.clone())  # some change their input in place, as spandrel's RCAN

    # The class cannot be imported by its name, which is what pickling does by default.
    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (type(self).__bases__[1],), self.__dict__


def adopt(network: nn.Module, spec: Mapping[str, Any], info: ModelInfo) -> SRNetwork:
    """Make `network` an `SRNetwork` in place: it keeps its class as a base, its modules, their paths and its weights.

    Args:
        network: from N x C x H x W to N x C x sH x sW.
        spec: see `SRNetwork.spec`.
        info: see `SRNetwork.info`.
    """
    network.__dict__["spec"] = dict(spec)
    network.__dict__["_info"] = info
    network.__class__ = _class_of(type(network))
    assert isinstance(network, SRNetwork)  # noqa: S101
    return network


_classes: dict[type[nn.Module], type[SRNetwork]] = {}


def _class_of(theirs: type[nn.Module]) -> type[SRNetwork]:
    if theirs not in _classes:
        body = {"__doc__": theirs.__doc__, "__module__": __name__}
        _classes[theirs] = type(theirs.__name__, (AdoptedNetwork, theirs), body)
    return _classes[theirs]


def _blank(theirs: type[nn.Module]) -> nn.Module:
    """An instance of a network without its contents, for copies and pickles."""
    return nn.Module.__new__(_class_of(theirs))
