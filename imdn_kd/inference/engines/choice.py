"""Which engine runs a network on this machine: the fastest one whose results are those of PyTorch."""

from __future__ import annotations

import logging

import torch
from torch import nn

from imdn_kd.archs.base import ModelInfo
from imdn_kd.errors import InputError
from imdn_kd.inference.device import Precision, choose_dtype
from imdn_kd.inference.engines.base import TORCH, Engine, engine_kind, find_engine, installed
from imdn_kd.inference.engines.remembered import Choice, keep, key_of, recall
from imdn_kd.inference.engines.trial import TIMED, Trial, seconds_of_torch, tolerance
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.text import one_line

log = logging.getLogger("imdn_kd")

_CPU = torch.device("cpu")

_WORTH = 0.95
"""An engine is taken if its time is no more than this part of PyTorch's."""


def choose_engine(
    name: str, network: nn.Module, info: ModelInfo, value_range: float = 1.0, precision: Precision = "fp32"
) -> Engine | None:
    """The engine called `name`, or None for PyTorch.

    `auto` measures all that are installed when a network first comes on a machine, and remembers which was the fastest.

    Args:
        name: `torch`, an engine, or `auto`.
        network: in fp32 on the CPU, in evaluation mode.
        info: of the network.
        value_range: of its images.
        precision: `fp32`, `bf16` or `fp16`, in which the engine is to compute.

    Raises:
        InputError: as `find_engine`; `engine.cannot-export`; `engine.cannot-run`, the runtime fails;
            `engine.wrong-result`, the results differ from those of PyTorch; `inference.precision`, it would be PyTorch,
            which has no such precision.
    """
    if name in (TORCH, "auto"):
        if name == "auto":
            name = _automatic(network, info, value_range, precision)
            log.info("%s is run in %s by %s", type(network).__name__, precision, name)
        if name == TORCH:
            choose_dtype(precision, _CPU)
            return None
        return find_engine(name, precision)
    engine = find_engine(name, precision)
    try:
        error = Trial(engine, network, info, value_range).error
    except InputError:
        raise
    except Exception as failure:  # each runtime has its own kinds
        raise InputError(
            f"engine {name!r} cannot run this network: {one_line(str(failure))}; use the engine 'torch'",
            code="engine.cannot-run",
        ) from failure
    if not error <= tolerance(network, precision):
        raise InputError(
            f"engine {name!r} gives another result than PyTorch (by {error:.2g} of the range) for this network; "
            "use the engine 'torch'",
            code="engine.wrong-result",
        )
    return engine


def _automatic(network: nn.Module, info: ModelInfo, value_range: float, precision: Precision) -> str:
    if info.receptive_radius is None:
        return TORCH  # unknown, as it then is whether the graph for one size is that for another
    if not candidates(precision):
        if not candidates("fp32"):
            log.info("there is no engine but PyTorch; others are often faster: %s", how_to_install("deploy"))
        return TORCH
    return measured(network, info, value_range, precision).engine


def candidates(precision: Precision) -> list[str]:
    """The engines besides PyTorch of which `auto` takes one: those installed that have the precision and start soon."""
    kinds = {name: engine_kind(name) for name in installed()[1:]}
    return [name for name, kind in kinds.items() if kind.tried_by_auto and precision in kind.precisions()]


def measured(network: nn.Module, info: ModelInfo, value_range: float = 1.0, precision: Precision = "fp32") -> Choice:
    """Measure the engines that are installed, or tell what was measured before; arguments as `choose_engine`."""
    versions = [f"{name} {engine_kind(name).version()}" for name in candidates(precision)]
    key = key_of(network, precision, [*versions, f"{TIMED} px"])
    choice = recall(key)
    if choice is None:
        choice = _measure(network, info, value_range, precision)
        keep(key, choice)
    return choice


def _measure(network: nn.Module, info: ModelInfo, value_range: float, precision: Precision) -> Choice:
    seconds = {}
    for name in candidates(precision):
        try:
            trial = Trial(find_engine(name, precision), network, info, value_range)
        except Exception as error:
            log.debug("engine %s cannot run %s: %s", name, type(network).__name__, error)
            continue
        if trial.error <= tolerance(network, precision):
            seconds[name] = trial.seconds()
        else:
            log.debug("engine %s differs from PyTorch by %.2g for %s", name, trial.error, type(network).__name__)
    try:
        dtype = choose_dtype(precision, _CPU)
    except InputError:
        return Choice(min(seconds, key=seconds.__getitem__, default=TORCH), seconds)
    plain = seconds_of_torch(network, info, value_range, dtype)
    best = min(seconds, key=seconds.__getitem__, default=TORCH)
    chosen = best if seconds.get(best, plain) <= _WORTH * plain else TORCH
    return Choice(chosen, {TORCH: plain, **seconds})
