"""Files of ncnn, https://github.com/Tencent/ncnn, for phones: the graph (.param), weights (.bin), metadata (.json)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from imdn_kd.archs.base import SRNetwork
from imdn_kd.inference.engines.base import Array
from imdn_kd.inference.engines.ncnn import open_ncnn
from imdn_kd.inference.engines.ncnn_graphs import to_ncnn
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.metadata import INPUT, OUTPUT
from imdn_kd.inference.export.samples import sample

SUFFIXES = (".param", ".bin", ".json")
PACKAGES = ("pnnx", "ncnn")
RUNTIME = "ncnn"


def write(network: SRNetwork, metadata: Mapping[str, str], path: Path) -> None:
    """See `Format.write`."""
    info = network.info
    graph, weights = to_ncnn(
        network, [sample(info)], [sample(info, side=48, wider=3)], inputs=[INPUT], outputs=[OUTPUT]
    )
    path.write_bytes(graph)
    path.with_suffix(".bin").write_bytes(weights)
    path.with_suffix(".json").write_text(json.dumps(dict(metadata), indent=2, ensure_ascii=False), encoding="utf-8")


def read_metadata(path: Path) -> dict[str, str]:
    """See `Format.read_metadata`."""
    return dict(json.loads(path.with_suffix(".json").read_text(encoding="utf-8")))


def load(path: Path, threads: int) -> Run:
    """See `Format.load`; in fp32, which is not its default everywhere."""
    graph = open_ncnn(path, threads, inputs=[INPUT], outputs=[OUTPUT])

    def run(images: Array) -> Array:
        return np.concatenate([graph([image[None]])[0] for image in images])

    return run
