"""What an engine does, and which ones there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy.typing as npt
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.inference.engines.graphs import to_onnx
from imdn_kd.utils.extras import how_to_install

Array = npt.NDArray[Any]
Graph = Callable[[list[Array]], list[Array]]
"""Runs a graph: arrays in the order of its inputs, of any height and width, to arrays in the order of its outputs."""

TORCH = "torch"

_PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx"),  # PyTorch exports by means of onnx
    "openvino": ("openvino", "onnx"),
    "ncnn": ("ncnn", "pnnx"),
    "torch-compile": (),
}
"""The engines besides PyTorch, each with the packages that it needs; the modules here have the same names."""

NAMES = (TORCH, *_PACKAGES)


@dataclass(frozen=True)
class Program:
    """What an engine runs; arguments as those of `to_onnx`."""

    module: nn.Module
    samples: Sequence[Tensor]
    inputs: Sequence[str]
    outputs: Sequence[str]

    def onnx(self) -> bytes:
        """The program in the ONNX format."""
        return to_onnx(self.module, self.samples, inputs=self.inputs, outputs=self.outputs)


class Engine(ABC):
    """A runtime on the CPU, which computes in one of its `precisions`; what goes in and out is fp32, or uint8."""

    takes_pixels: ClassVar[bool] = True
    """Whether it can run what reads and makes uint8."""

    tried_by_auto: ClassVar[bool] = True
    """Whether it is ready soon enough to be measured with a network that is used for the first time."""

    def __init__(self, precision: str = "fp32") -> None:
        self.precision = precision

    @property
    def name(self) -> str:
        """One of `NAMES`."""
        return type(self).__module__.rpartition(".")[2].replace("_", "-")

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """The version of the runtime."""

    @classmethod
    def precisions(cls) -> tuple[str, ...]:
        """Those of `fp32`, `bf16` and `fp16` for which this runtime and this processor have instructions."""
        return ("fp32",)

    @abstractmethod
    def load(self, program: Program, threads: int) -> Graph:
        """Prepare a program, to be run with so many threads.

        Raises:
            InputError: it cannot be converted for this runtime.
        """


def installed() -> tuple[str, ...]:
    """Names of the engines that can be used here, without importing them; `torch` is the first."""
    return (TORCH, *(name for name, packages in _PACKAGES.items() if not _missing(packages)))


def engine_kind(name: str) -> type[Engine]:
    """The class of the engine of that name.

    Raises:
        InputError: `engine.unknown`, `engine.not-installed`.
    """
    if name not in _PACKAGES:
        raise InputError(f"engine {name!r} is unknown; choose one of {', '.join(NAMES)}", code="engine.unknown")
    missing = _missing(_PACKAGES[name])
    if missing:
        raise InputError(
            f"engine {name!r} needs {' and '.join(missing)}; {how_to_install('deploy')}, or use the engine 'torch'",
            code="engine.not-installed",
        )
    kind: type[Engine] = import_module(f"imdn_kd.inference.engines.{name.replace('-', '_')}").Runtime
    return kind


def find_engine(name: str, precision: str = "fp32") -> Engine:
    """The engine of that name, to compute in that precision.

    Raises:
        InputError: as `engine_kind`; `engine.precision`, it has no such precision here.
    """
    kind = engine_kind(name)
    if precision not in kind.precisions():
        raise InputError(
            f"engine {name!r} computes in {' and '.join(kind.precisions())} on this processor, not in {precision}; "
            "use another precision, or another engine",
            code="engine.precision",
        )
    return kind(precision)


def _missing(packages: Sequence[str]) -> list[str]:
    return [package for package in packages if find_spec(package) is None]
