"""ONNX Runtime, https://onnxruntime.ai."""

from __future__ import annotations

from imdn_kd.inference.engines.base import Array, Engine, Graph, Program


class Runtime(Engine):
    """See `Engine`; on the CPU it computes in fp32 alone."""

    @classmethod
    def version(cls) -> str:
        """See `Engine.version`."""
        import onnxruntime

        return str(onnxruntime.__version__)

    def load(self, program: Program, threads: int) -> Graph:
        """See `Engine.load`."""
        return open_onnx(program.onnx(), threads)


def open_onnx(onnx: bytes, threads: int) -> Graph:
    """Prepare a graph in the ONNX format, to be run with so many threads."""
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
