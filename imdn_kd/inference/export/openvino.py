"""Files of OpenVINO, https://docs.openvino.ai: the graph (.xml) and its weights (.bin)."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from imdn_kd.archs.base import SRNetwork
from imdn_kd.inference.engines.base import Array
from imdn_kd.inference.engines.graphs import to_onnx
from imdn_kd.inference.engines.openvino import open_openvino
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.metadata import INPUT, OUTPUT
from imdn_kd.inference.export.samples import sample

if TYPE_CHECKING:
    import openvino

SUFFIXES = (".xml", ".bin")
PACKAGES = ("onnx", "openvino")
RUNTIME = "openvino"

_SECTION = "imdn_kd"
"""Of the model's own information, in which the metadata stand."""


def build(network: SRNetwork) -> openvino.Model:
    """A model for images of any number and size."""
    import openvino

    graph = to_onnx(network, [sample(network.info)], inputs=[INPUT], outputs=[OUTPUT], any_batch=True)
    return openvino.Core().read_model(BytesIO(graph))


def save(model: openvino.Model, metadata: Mapping[str, str], path: Path) -> None:
    """Write a model that says `metadata`, its numbers as they are."""
    import openvino

    for key, value in metadata.items():
        model.set_rt_info(value, [_SECTION, key])
    openvino.save_model(model, path, compress_to_fp16=False)


def write(network: SRNetwork, metadata: Mapping[str, str], path: Path) -> None:
    """See `Format.write`."""
    save(build(network), metadata, path)


def read_metadata(path: Path) -> dict[str, str]:
    """See `Format.read_metadata`."""
    import openvino

    model = openvino.Core().read_model(path)
    if not model.has_rt_info([_SECTION]):
        return {}
    return {key: str(value) for key, value in model.get_rt_info([_SECTION]).value.items()}


def load(path: Path, threads: int) -> Run:
    """See `Format.load`."""
    import openvino

    graph = open_openvino(openvino.Core().read_model(path), threads)

    def run(image: Array) -> Array:
        return graph([image])[0]

    return run
