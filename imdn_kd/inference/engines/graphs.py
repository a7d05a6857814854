"""From modules of PyTorch to graphs in the ONNX format, https://onnx.ai."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from unittest.mock import patch

import torch
from torch import Tensor, nn

from imdn_kd.archs.quantize import QuantizedConv2d
from imdn_kd.errors import InputError
from imdn_kd.inference.engines.int8_kernels import store_int8
from imdn_kd.utils.text import one_line


def to_onnx(
    module: nn.Module,
    samples: Sequence[Tensor],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    any_batch: bool = False,
) -> bytes:
    """The graph of `module`, for all heights and widths.

    Args:
        module: takes tensors, of which those of more than one px may have any height and width, and returns one or a
            tuple of such tensors; all of them N x C x H x W, or all H x W x C.
        samples: an input each.
        inputs: names of the inputs.
        outputs: names of the outputs.
        any_batch: any number of images at once, rather than that of the samples.

    Raises:
        InputError: `engine.cannot-export`, an operation has no counterpart in ONNX.
    """
    rows, columns = (0, 1) if samples[0].dim() == 3 else (2, 3)
    maps = [name for name, sample in zip(inputs, samples, strict=True) if sample.shape[rows : columns + 1] != (1, 1)]
    batch = {0: "batch"} if any_batch else {}
    sizes = {name: batch | {rows: f"{name}_height", columns: f"{name}_width"} for name in (*maps, *outputs)}
    file = BytesIO()
    with torch.no_grad(), _without_dumps(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about tracing, and that there is another exporter
        try:
            # The exporter by tracing: the other one takes up to a hundred times as long, and these are straight chains.
            torch.onnx.export(
                module,
                tuple(samples),
                file,  # type: ignore[arg-type]
                dynamo=False,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_axes=sizes,
                opset_version=17,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise InputError(
                f"{type(module).__name__} cannot be exported to ONNX: {_obstacle(str(error))}",
                code="engine.cannot-export",
            ) from error
    in_8_bits = any(isinstance(part, QuantizedConv2d) for part in module.modules())
    return store_int8(file.getvalue()) if in_8_bits else file.getvalue()


def traced(module: nn.Module, samples: Sequence[Tensor]) -> torch.jit.ScriptModule:
    """`module` as TorchScript, for all heights and widths; arguments as `to_onnx`.

    Raises:
        InputError: `engine.cannot-export`, it cannot be traced.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            script: torch.jit.ScriptModule = torch.jit.trace(module, tuple(samples), check_trace=False)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise InputError(
                f"{type(module).__name__} cannot be traced: {one_line(str(error))}", code="engine.cannot-export"
            ) from error
    return script


def _obstacle(message: str) -> str:
    """Which operation is in the way, out of what the exporter says of it, its graphs and advice left out."""
    reason = re.split(r"\.\.? (?:Please|If you)|\[Caused by", one_line(message))[0].strip(" .")
    found = re.search(r"operator '?(?P<name>[\w:. ]+?)'?(?:,| to ONNX|$)", reason)
    return f"the operation {found['name']} is in the way ({reason})" if found else reason


@contextmanager
def _without_dumps() -> Iterator[None]:
    """Keep PyTorch from printing the whole graph when an export fails."""
    with patch.object(torch._C, "_jit_onnx_log", lambda *_: None):
        yield
