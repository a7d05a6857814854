"""Which engine runs a network on this machine: the fastest one whose results are those of PyTorch."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo
from imdn_kd.errors import InputError
from imdn_kd.inference.engines.base import TORCH, Engine, find_engine, installed
from imdn_kd.inference.engines.compiled import CompiledNetwork
from imdn_kd.inference.fingerprint import fingerprint
from imdn_kd.inference.tiles import round_up
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.text import one_line

log = logging.getLogger("imdn_kd")

TOLERANCE = 1e-4
"""How far results may be from those of PyTorch, of the range of the image."""

_SIDES = ((40, 56), (96, 128))
"""Sizes in px on which results are compared; the last is the one that is timed."""

_WORTH = 0.95
"""An engine is taken if its time is no more than this part of PyTorch's."""


_ENTRY = {"engine", "seconds"}


def choose_engine(name: str, network: nn.Module, info: ModelInfo, value_range: float = 1.0) -> Engine | None:
    """The engine called `name`, or None for PyTorch.

    `auto` measures all that are installed when a network first comes on a machine, and remembers which was the fastest.

    Args:
        name: `torch`, an engine, or `auto`.
        network: in fp32 on the CPU, in evaluation mode.
        info: of the network.
        value_range: of its images.

    Raises:
        InputError: as `find_engine`; `engine.cannot-export`; `engine.cannot-run`, the runtime fails;
            `engine.wrong-result`, the results differ from those of PyTorch.
    """
    if name == TORCH:
        return None
    if name != "auto":
        engine = find_engine(name)
        try:
            error = _Trial(engine, network, info, value_range).error
        except InputError:
            raise
        except Exception as failure:  # each runtime has its own kinds
            raise InputError(
                f"engine {name!r} cannot run this network: {one_line(str(failure))}; use the engine 'torch'",
                code="engine.cannot-run",
            ) from failure
        if not error <= TOLERANCE:
            raise InputError(
                f"engine {name!r} gives another result than PyTorch (by {error:.2g} of the range) for this network; "
                "use the engine 'torch'",
                code="engine.wrong-result",
            )
        return engine
    # Where the receptive field is unknown, so is whether the graph for one size is that for another.
    if len(installed()) == 1 or info.receptive_radius is None:
        return None
    name = measured(network, info, value_range).name
    return None if name == TORCH else find_engine(name)


def measured(network: nn.Module, info: ModelInfo, value_range: float = 1.0) -> Choice:
    """Measure the engines that are installed, or tell what was measured before; arguments as `choose_engine`."""
    key, known = _key(network), _read(memory_file())
    if key in known:
        return Choice(known[key]["engine"], known[key]["seconds"])
    choice = _measure(network, info, value_range)
    known[key] = {"engine": choice.name, "seconds": choice.seconds}
    try:
        with atomic_path(memory_file()) as path:
            path.write_text(json.dumps(known, indent=2))
    except (OSError, InputError) as error:
        log.debug("%s: the choice of the engine is not kept (%s)", memory_file(), error)
    return choice


def forget() -> Path:
    """Remove what is remembered of all networks; returns the file where it was."""
    path = memory_file()
    path.unlink(missing_ok=True)
    return path


def memory_file() -> Path:
    """Where choices are remembered."""
    return user_cache_path("imdn_kd") / "engines.json"


@dataclass(frozen=True)
class Choice:
    """The engine that is used for a network, and what was measured: seconds for a small image by each engine."""

    name: str
    seconds: dict[str, float]


def _measure(network: nn.Module, info: ModelInfo, value_range: float) -> Choice:
    seconds = {TORCH: _seconds_of_torch(network, info, value_range)}
    for name in installed()[1:]:
        try:
            trial = _Trial(find_engine(name), network, info, value_range)
        except Exception as error:
            log.debug("engine %s cannot run %s: %s", name, type(network).__name__, error)
            continue
        if trial.error <= TOLERANCE:
            seconds[name] = trial.seconds()
        else:
            log.debug("engine %s differs from PyTorch by %.2g for %s", name, trial.error, type(network).__name__)
    best = min(seconds, key=seconds.__getitem__)
    return Choice(best if seconds[best] <= _WORTH * seconds[TORCH] else TORCH, seconds)


class _Trial:
    """An engine tried on a network; `error` is its largest difference from PyTorch, of the range of the image."""

    def __init__(self, engine: Engine, network: nn.Module, info: ModelInfo, value_range: float) -> None:
        self._compiled = CompiledNetwork(engine, network, info)
        self._images = _images(info, value_range)
        with torch.no_grad():
            pairs = [(self._compiled(image), network(image)) for image in self._images]
        # Not Python's max, which passes over NaN.
        self.error = float(torch.stack([(ours - theirs).abs().max() for ours, theirs in pairs]).max()) / value_range

    def seconds(self) -> float:
        return _shortest(lambda: self._compiled(self._images[-1]))


def _seconds_of_torch(network: nn.Module, info: ModelInfo, value_range: float) -> float:
    image = _images(info, value_range)[-1].contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return _shortest(lambda: network(image))


def _shortest(run: Callable[[], object]) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _images(info: ModelInfo, value_range: float) -> list[Tensor]:
    step, smallest = info.size_multiple, info.min_size
    sizes = [[round_up(max(smallest, side), step) for side in sides] for sides in _SIDES]
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((1, info.num_in_ch, *size), generator=generator) * value_range for size in sizes]


def _key(network: nn.Module) -> str:
    """Of the weights, the machine, the runtimes and the threads."""
    versions = [torch.__version__, *(f"{name} {find_engine(name).version()}" for name in installed()[1:])]
    machine = [platform.node(), platform.machine(), str(torch.get_num_threads())]
    return hashlib.sha256(json.dumps([fingerprint(network), versions, machine]).encode()).hexdigest()[:32]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: entry for key, entry in content.items() if isinstance(entry, dict) and entry.keys() >= _ENTRY}
