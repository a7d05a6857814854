"""Exported files as models: what their runtimes run in the place of a network of PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.errors import InputError, naming
from imdn_kd.inference.engines.base import TORCH
from imdn_kd.inference.export.formats import Format, Run, find_format
from imdn_kd.inference.export.metadata import read_info
from imdn_kd.inference.model_file import ModelFile, load_model
from imdn_kd.inference.model_names import name_of
from imdn_kd.inference.weights import graph_format
from imdn_kd.utils.text import one_line


class GraphNetwork(SRNetwork):
    """An exported file, run on the CPU by the runtime of its format; it has no parameters and cannot be trained.

    Where its receptive field is known and nothing pools globally, it is run over crops with the result of the whole
    image; otherwise on whole images.

    Args:
        path: of the file.
        format_name: as `formats.NAMES`.
        metadata: what the file says.
    """

    def __init__(self, path: str, format_name: str, metadata: Mapping[str, str]) -> None:
        super().__init__()
        self._info, _ = read_info(metadata)
        self._pixel_bytes = int(metadata.get("pixel_bytes") or 0)
        self._path, self._format = Path(path), find_format(format_name, to_run=True)
        self._digest = hashlib.sha256(b"".join(file.read_bytes() for file in _files(self._format, self._path)))
        self._runs: dict[int, Run] = {}

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        return self._info

    @property
    def runtime(self) -> str:
        """The package that runs it."""
        return self._format.RUNTIME

    def segments(self) -> list[Any]:
        """See `SRNetwork.segments`; there are none where something pools globally."""
        return [] if self._info.global_pool_modules else super().segments()

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W, in fp32 whatever their type."""
        # Runtimes do not say what they take: this stands for it where memory is measured, and is never touched.
        stand_in = torch.empty(self._pixel_bytes * image[0, 0].numel() * len(image), dtype=torch.uint8)
        threads = torch.get_num_threads()
        if threads not in self._runs:
            self._runs[threads] = self._format.load(self._path, threads)
        try:
            result = self._runs[threads](image.float().cpu().contiguous().numpy())
        except Exception as error:
            # Those of ONNX Runtime are of no standard kind; callers look for those of PyTorch.
            raise RuntimeError(str(error)) from error
        del stand_in
        return torch.from_numpy(result).to(image.device, image.dtype)

    def extra_repr(self) -> str:
        """What tells it from others."""
        return f"sha256={self._digest.hexdigest()}"

    def __deepcopy__(self, memo: Any) -> GraphNetwork:  # noqa: ANN401 - see copy.deepcopy
        return self  # nothing in it changes


def open_model(model: Path | str, spec: Mapping[str, Any] | None = None, *, key: str | None = None) -> ModelFile:
    """As `load_model`, or an exported file as a model that can be run and measured, not trained.

    Raises:
        InputError: as `load_model`; `export.foreign`, a file of another program; `export.not-installed`, its runtime is
            not there; `model.damaged`.
    """
    path = Path(model)
    name = graph_format(path)
    if name is None:
        return load_model(model, spec, key=key)
    with naming(path):
        if spec is not None or key is not None:
            raise InputError(
                "says itself what it is; leave out the network and the key (--arch, param_key)",
                code="model.other-network",
            )
        form = find_format(name, to_run=True)
        try:
            metadata = form.read_metadata(path)
        except Exception as error:  # each runtime has its own kinds
            raise InputError(
                f"{form.RUNTIME} cannot read it ({one_line(str(error))}); export it again", code="model.damaged"
            ) from error
        _, value_range = read_info(metadata)
        network = GraphNetwork(str(path), name, metadata).eval()
    return ModelFile(network, value_range, card=metadata.get("card", ""), name=name_of(model))


def engine_for(network: torch.nn.Module, engine: str, dtype: torch.dtype) -> str:
    """The engine to ask for where `engine` is wanted: an exported file has its own runtime.

    Raises:
        InputError: `engine.exported`: another one, or another precision, is wanted for an exported file.
    """
    if not isinstance(network, GraphNetwork):
        return engine
    if engine not in ("auto", TORCH, network.runtime) or dtype != torch.float32:
        raise InputError(
            f"an exported file is run as it is by {network.runtime}; leave out engine and precision, or give the model "
            "that it was made from",
            code="engine.exported",
        )
    return TORCH


def _files(form: Format, path: Path) -> list[Path]:
    return [path, *(path.with_suffix(suffix) for suffix in form.SUFFIXES[1:])]
