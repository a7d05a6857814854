"""OpenVINO, https://docs.openvino.ai."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

from imdn_kd.inference.engines.base import Array, Engine, Graph, Program

if TYPE_CHECKING:
    import openvino

_FIXED = 4
"""Sizes for which a graph of their own is kept: it is faster, and takes memory and up to a second to make."""

_HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class Runtime(Engine):
    """See `Engine`."""

    @classmethod
    def version(cls) -> str:
        """See `Engine.version`."""
        import openvino

        return str(openvino.__version__)

    @classmethod
    def precisions(cls) -> tuple[str, ...]:
        """See `Engine.precisions`. It accepts the others everywhere, and then computes in fp32."""
        capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return tuple(name for name in _HINTS if name.upper() in capabilities)

    def load(self, program: Program, threads: int) -> Graph:
        """See `Engine.load`.

        A size is run by the graph for all sizes when it first comes, and by one of its own from the second time on.
        """
        return open_openvino(_core().read_model(BytesIO(program.onnx())), threads, self.precision)


def open_openvino(model: openvino.Model, threads: int, precision: str = "fp32") -> Graph:
    """Prepare a model, to be run with so many threads; see `Runtime.load` for sizes."""
    core = _core()
    settings = {
        "INFERENCE_PRECISION_HINT": _HINTS[precision],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        # What it keeps for each size that comes is not used again: a size that comes twice has a graph of its own.
        "CPU_RUNTIME_CACHE_CAPACITY": 0,
    }
    free = core.compile_model(model, "CPU", settings)
    fixed: OrderedDict[tuple[tuple[int, ...], ...], openvino.CompiledModel | None] = OrderedDict()

    def compiled(shapes: tuple[tuple[int, ...], ...]) -> openvino.CompiledModel:
        known = shapes in fixed
        if known and fixed[shapes] is None:
            copy = model.clone()
            copy.reshape(dict(zip((port.any_name for port in copy.inputs), map(list, shapes), strict=True)))
            fixed[shapes] = core.compile_model(copy, "CPU", settings)
        fixed[shapes] = fixed.pop(shapes, None)
        while len(fixed) > _FIXED:
            fixed.popitem(last=False)
        return fixed[shapes] or free

    def run(arrays: list[Array]) -> list[Array]:
        results = compiled(tuple(array.shape for array in arrays))(arrays)
        return [results[number] for number in range(len(results))]

    return run


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()
