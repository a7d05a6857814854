"""ONNX files, https://onnx.ai, checked by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from imdn_kd.archs.base import SRNetwork
from imdn_kd.inference.engines.base import Array
from imdn_kd.inference.engines.graphs import to_onnx
from imdn_kd.inference.engines.onnxruntime import open_onnx
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.metadata import INPUT, OUTPUT
from imdn_kd.inference.export.samples import sample

if TYPE_CHECKING:
    import onnx

SUFFIXES = (".onnx",)
PACKAGES = ("onnx", "onnxruntime")
RUNTIME = "onnxruntime"


def build(network: SRNetwork, metadata: Mapping[str, str]) -> bytes:
    """The content of an ONNX file for images of any number and size."""
    import onnx

    graph = to_onnx(network, [sample(network.info)], inputs=[INPUT], outputs=[OUTPUT], any_batch=True)
    return bytes(with_metadata(onnx.load_from_string(graph), metadata).SerializeToString())


def with_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The same model, which says `metadata`."""
    import onnx

    onnx.helper.set_model_props(model, dict(metadata))
    model.producer_name, _, model.producer_version = metadata["producer"].partition(" ")
    model.doc_string = metadata["name"]
    return model


def write(network: SRNetwork, metadata: Mapping[str, str], path: Path) -> None:
    """See `Format.write`."""
    path.write_bytes(build(network, metadata))


def read_metadata(path: Path) -> dict[str, str]:
    """See `Format.read_metadata`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return dict(session.get_modelmeta().custom_metadata_map)


def load(path: Path, threads: int) -> Run:
    """See `Format.load`."""
    graph = open_onnx(path.read_bytes(), threads)

    def run(image: Array) -> Array:
        return graph([image])[0]

    return run
