"""From modules of PyTorch to graphs of ncnn, https://github.com/Tencent/ncnn, by its converter pnnx."""

from __future__ import annotations

import re
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.inference.engines.graphs import traced


def to_ncnn(
    module: nn.Module,
    samples: Sequence[Tensor],
    others: Sequence[Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> tuple[bytes, bytes]:
    """The graph of `module`, for all heights and widths, and its weights in fp32: the contents of .param and .bin.

    Args:
        module: takes tensors 1 x C x H x W and returns one or a tuple of such tensors.
        samples: an input each.
        others: inputs of other heights and widths, which tell what is to be free.
        inputs: names of the inputs.
        outputs: names of the outputs.

    Raises:
        InputError: `engine.cannot-export`, ncnn lacks an operation.
    """
    import pnnx

    name = type(module).__name__
    with TemporaryDirectory(prefix="imdn_kd_") as folder:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will be gone one day
            torch.jit.save(traced(module, samples), Path(folder, "model.pt"))
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape={_shapes(samples)}", f"inputshape2={_shapes(others)}"]
        command += ["fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - pnnx
        try:
            graph = Path(folder, "model.ncnn.param").read_text()
            weights = Path(folder, "model.ncnn.bin").read_bytes()
        except OSError as error:
            reason = (done.stderr.strip().splitlines() or [f"pnnx ended with {done.returncode}"])[-1]
            raise InputError(f"{name} cannot be exported to ncnn: {reason}", code="engine.cannot-export") from error
    lines = graph.splitlines()
    # What pnnx has no layer of ncnn for keeps its name in PyTorch.
    kinds = [line.split()[0] for line in lines[2:]]
    strange = next((kind for kind in kinds if re.search(r"[.:]", kind)), None)
    if strange is not None:
        raise InputError(
            f"{name} cannot be exported to ncnn: the operation {strange} is in the way", code="engine.cannot-export"
        )
    names = {f"in{number}": given for number, given in enumerate(inputs)}
    names |= {f"out{number}": given for number, given in enumerate(outputs)}
    renamed = [" ".join(names.get(word, word) for word in line.split()) for line in lines[2:]]
    return "\n".join([*lines[:2], *renamed, ""]).encode(), weights


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ",".join(f"[{','.join(map(str, tensor.shape))}]f32" for tensor in tensors)
