"""TorchScript, https://docs.pytorch.org/docs/stable/jit.html: traced networks for libtorch and PyTorch Mobile."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.inference.engines.base import Array
from imdn_kd.inference.engines.graphs import traced
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.metadata import FILE
from imdn_kd.inference.export.samples import sample

SUFFIXES = (".pt",)
PACKAGES = ()
RUNTIME = "torch"


def write(network: SRNetwork, metadata: Mapping[str, str], path: Path) -> None:
    """See `Format.write`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(traced(network, [sample(network.info)]), path, _extra_files={FILE: json.dumps(metadata)})


def read_metadata(path: Path) -> dict[str, str]:
    """See `Format.read_metadata`."""
    said = {FILE: ""}
    _read(path, said)
    return dict(json.loads(said[FILE] or "{}"))


def load(path: Path, threads: int) -> Run:
    """See `Format.load`; PyTorch has one number of threads for all."""
    module = _read(path, {})

    @torch.no_grad()
    def run(image: Array) -> Array:
        result: Array = module(torch.from_numpy(image)).numpy()
        return result

    return run


def _read(path: Path, said: dict[str, str]) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will be gone one day
        module: torch.jit.ScriptModule = torch.jit.load(path, map_location="cpu", _extra_files=said)  # type: ignore[no-untyped-call]
    return module
