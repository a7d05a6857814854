"""ncnn, https://github.com/Tencent/ncnn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import Tensor

from imdn_kd.inference.engines.base import Array, Engine, Graph, Program
from imdn_kd.inference.engines.ncnn_graphs import to_ncnn

_SHORTER = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")


class Runtime(Engine):
    """See `Engine`; it runs one image at a time."""

    takes_pixels = False

    @classmethod
    def version(cls) -> str:
        """See `Engine.version`."""
        import ncnn

        return str(ncnn.__version__)

    def load(self, program: Program, threads: int) -> Graph:
        """See `Engine.load`."""
        inputs, outputs = program.inputs, program.outputs
        graph, weights = to_ncnn(
            program.module, program.samples, _of_other_sizes(program.samples), inputs=inputs, outputs=outputs
        )
        with TemporaryDirectory(prefix="imdn_kd_") as folder:
            path = Path(folder, "model.param")
            path.write_bytes(graph)
            path.with_suffix(".bin").write_bytes(weights)
            return open_ncnn(path, threads, inputs=inputs, outputs=outputs)


def open_ncnn(path: Path, threads: int, *, inputs: Sequence[str], outputs: Sequence[str]) -> Graph:
    """Open a `.param` file and the `.bin` file beside it, to be run in fp32 with so many threads.

    Raises:
        RuntimeError: ncnn cannot read them.
    """
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in _SHORTER:  # which are the default on some processors, and round values
        if hasattr(net.opt, option):
            setattr(net.opt, option, False)
    if net.load_param(str(path)) or net.load_model(str(path.with_suffix(".bin"))):
        raise RuntimeError("ncnn cannot read the graph")

    def run(arrays: list[Array]) -> list[Array]:
        extractor = net.create_extractor()
        for name, array in zip(inputs, arrays, strict=True):
            # Copied, since channels that do not begin at multiples of 16 bytes give wrong results.
            extractor.input(name, ncnn.Mat(np.ascontiguousarray(array[0])).clone())
        results = []
        for name in outputs:
            failed, result = extractor.extract(name)
            if failed:
                raise RuntimeError("ncnn is out of memory" if failed == _NO_MEMORY else f"ncnn fails with {failed}")
            results.append(np.array(result)[None])
        return results

    return run


_NO_MEMORY = -100


def _of_other_sizes(samples: Sequence[Tensor]) -> list[Tensor]:
    return [t if t.shape[2:] == (1, 1) else t.repeat(1, 1, 2, 2) for t in samples]
