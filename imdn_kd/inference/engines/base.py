"""What an engine does, and which ones there are."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy.typing as npt

from imdn_kd.errors import InputError

Array = npt.NDArray[Any]
Graph = Callable[[list[Array]], list[Array]]
"""Runs a graph: arrays in the order of its inputs, of any height and width, to arrays in the order of its outputs."""

TORCH = "torch"
_RUNTIMES = ("onnxruntime", "openvino")
NAMES = (TORCH, *_RUNTIMES)


class Engine(Protocol):
    """A runtime; the modules here with the names of runtimes, and of their packages, are engines."""

    def version(self) -> str:
        """The version of the runtime."""

    def load(self, onnx: bytes, threads: int) -> Graph:
        """Prepare a graph in the ONNX format, to be run in fp32 with so many threads."""


def installed() -> tuple[str, ...]:
    """Names of the engines that can be used here, without importing them; `torch` is the first."""
    return (TORCH, *(name for name in _RUNTIMES if find_spec(name)))


def find_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        InputError: `engine.unknown`, or `engine.not-installed`.
    """
    if name not in _RUNTIMES:
        raise InputError(f"engine {name!r} is unknown; choose one of {', '.join(NAMES)}", code="engine.unknown")
    if find_spec(name) is None:
        raise InputError(
            f"engine {name!r} needs the package {name}; install it, or use the engine 'torch'",
            code="engine.not-installed",
        )
    engine: Engine = import_module(f"imdn_kd.inference.engines.{name}")
    return engine
