"""From modules of PyTorch to graphs in the ONNX format, https://onnx.ai."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from io import BytesIO

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line


def to_onnx(module: nn.Module, samples: Sequence[Tensor], *, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """The graph of `module`, for all heights and widths.

    Args:
        module: takes tensors, of which those of more than one px may have any height and width, and returns one or a
            tuple of such tensors.
        samples: an input each.
        inputs: names of the inputs.
        outputs: names of the outputs.

    Raises:
        InputError: `engine.cannot-export`, an operation has no counterpart in ONNX.
    """
    maps = [name for name, sample in zip(inputs, samples, strict=True) if sample.shape[2:] != (1, 1)]
    sizes = {name: {2: f"{name}_height", 3: f"{name}_width"} for name in (*maps, *outputs)}
    file = BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
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
                f"{type(module).__name__} cannot be exported: {one_line(str(error))}", code="engine.cannot-export"
            ) from error
    return file.getvalue()
