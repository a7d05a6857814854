"""The forms in which trainers leave the weights of a network: dictionaries around them, prefixes of their names.

BasicSR, mmagic, Lightning, timm, torch.compile, DistributedDataParallel, FSDP, `AveragedModel` and thop each have
their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

Weights = dict[str, Tensor]

BASICSR = ("params_ema", "params")
"""The keys of a BasicSR checkpoint that hold weights, averaged and plain."""

WRAPPERS = (
    *("params_ema", "params-ema", "ema_state_dict", "state_dict_ema", "model_ema", "ema"),
    *("params", "state_dict", "model_state_dict", "model", "network", "net"),
    *("generator", "netG", "net_g"),
)
"""Keys of checkpoints that hold weights, averaged ones first, in the order of preference."""

_OWNERS = (
    *("generator_ema", "net_g_ema", "ema_model"),
    *("generator", "netG", "net_g", "student", "model", "network", "net"),
)
"""What the network is called in a trainer's own module that has other modules beside it, averaged ones first."""

_COUNTERS = {"total_ops", "total_params"}
"""Buffers that thop leaves in every module (https://github.com/Lyken17/pytorch-OpCounter)."""

_HIDDEN = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names by torch.compile and FSDP, which may stand before any module."""

_DEPTH = 4


class SeveralError(ValueError):
    """A checkpoint has several sets of weights, none of them under a known key; its arguments are their keys."""


def find_weights(content: Mapping[Any, Any], depth: int = _DEPTH) -> tuple[Weights, str | None]:
    """Return the weights in a checkpoint, and the key that they were under, None if there was none.

    Values that are no tensors, and what thop counted, are left out. Empty if there are no weights.

    Raises:
        SeveralError: it is not clear which.
    """
    for wrapper in WRAPPERS if depth else ():
        held = content.get(wrapper)
        if isinstance(held, Mapping):
            weights, _ = find_weights(held, depth - 1)
            if weights:
                return weights, wrapper
    own = _tensors(content)
    others = {key: found for key, held in content.items() if isinstance(held, Mapping) and (found := _tensors(held))}
    if not others or any("." in name for name in own):
        return own, None
    if len(others) > 1:
        raise SeveralError(*map(str, others))
    ((key, weights),) = others.items()
    return weights, str(key)


def select_weights(content: Mapping[Any, Any], key: str) -> Weights:
    """Return the weights under a key of a checkpoint, or those of all modules below `key`; empty if there are none.

    Raises:
        SeveralError: it is not clear which.
    """
    held = content.get(key)
    if isinstance(held, Mapping):
        return find_weights(held)[0]
    return _below(key, find_weights(content)[0])


def namings(weights: Mapping[str, Tensor]) -> Iterator[Weights]:
    """The weights under their own names, then without what trainers put before these, one module after the other."""
    yield dict(weights)
    plain = {".".join(part for part in name.split(".") if part not in _HIDDEN): weights[name] for name in weights}
    if plain.keys() != weights.keys():
        yield plain
    while True:
        modules = {name.partition(".")[0] for name in plain if "." in name}
        owner = next((name for name in _OWNERS if name in modules), None)
        if owner is None and len(modules) == 1:
            (owner,) = modules
        if owner is None:
            return
        plain = _below(owner, plain)
        yield plain


def named_as(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Weights:
    """The weights under those of their names of which a network with the state `own` has most."""
    return max(namings(weights), key=lambda named: len(own.keys() & named.keys()))


def _below(module: str, weights: Mapping[str, Tensor]) -> Weights:
    prefix = f"{module}."
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _tensors(content: Mapping[Any, Any]) -> Weights:
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, Tensor) and name.rpartition(".")[2] not in _COUNTERS
    }
