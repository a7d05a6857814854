"""`wrap`: any module that upscales images as a network of the toolkit."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from imdn_kd.archs.adopted import adopt
from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.probing import info_of
from imdn_kd.archs.receptive_field import measure_dependence
from imdn_kd.errors import InputError

log = logging.getLogger("imdn_kd")

_ADDED = ("info", "segments", "spec", "_info")
"""Attributes that a wrapped module gets."""


def wrap(
    module: nn.Module,
    scale: int | None = None,
    *,
    num_in_ch: int | None = None,
    spec: Mapping[str, Any] | None = None,
) -> SRNetwork:
    """Make a student, a teacher or an upscaler of any module that upscales images.

    Size multiple, smallest size, receptive field and global pooling are measured by running a copy, in a second or so.
    The result states them as `info`; `print(network.info)` is one readable line, which is logged too. Where the
    receptive field is known and nothing pools globally, cropping gives exactly the result of the whole image; other
    networks are run on whole images.

    Args:
        module: from images N x C x H x W in [0, 1] to N x C x sH x sW, in eval mode without randomness.
        scale: s, as expected (default: as measured).
        num_in_ch: C; by default 3, or what the first convolution takes.
        spec: `{"type": name, **keywords}` by which the registry builds the network again; without it, it cannot be
            saved as a model file.

    Returns:
        A network that shares the weights of `module` and has its paths and names; `module` itself is not changed. An
        `SRNetwork` is returned as it is.

    Raises:
        InputError: what is given is no module, does not enlarge images or not by `scale`, or takes images of one size
            only.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        raise InputError(
            f"a {type(module).__name__} cannot be wrapped; give a torch.nn.Module that upscales images, not scripted",
            code="model.not-a-module",
        )
    name = type(module).__name__
    info = module.info if isinstance(module, SRNetwork) else _measure(module, num_in_ch)
    if scale is not None and info.scale != scale:
        raise InputError(f"{name} enlarges x{info.scale}, not x{scale}; correct the scale", code="model.scale-mismatch")
    if isinstance(module, SRNetwork):
        return module
    log.info("%s: %s", name, info)
    # A compiled module has no class to build on, and the module's own attributes must not be hidden.
    if any(hasattr(module, key) for key in (*_ADDED, "_orig_mod")):
        paths = tuple(f"0.{path}".rstrip(".") for path in info.global_pool_modules)
        outer = nn.Sequential(module).train(module.training)
        return adopt(outer, spec or {"type": name}, replace(info, global_pool_modules=paths))
    return adopt(copy.copy(module), spec or {"type": name}, info)


def finish(built: Any, spec: Mapping[str, Any]) -> SRNetwork:  # noqa: ANN401 - whatever the user's builder makes
    """What the registry does with a network of the user: `wrap` it, with the options it was built from."""
    return wrap(built, spec=spec)


def _measure(module: nn.Module, num_in_ch: int | None) -> ModelInfo:
    info = info_of(module, num_in_ch)
    return replace(info, **measure_dependence(module, info)._asdict())
