"""ONNX Runtime, https://onnxruntime.ai."""

from __future__ import annotations

from imdn_kd.inference.engines.base import Array, Graph


def version() -> str:
    """See `Engine.version`."""
    import onnxruntime

    return str(onnxruntime.__version__)


def load(onnx: bytes, threads: int) -> Graph:
    """See `Engine.load`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Both keep memory for each size that ever came.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(arrays: list[Array]) -> list[Array]:
        results: list[Array] = session.run(None, dict(zip(names, arrays, strict=True)))
        return results

    return run
