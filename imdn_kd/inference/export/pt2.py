"""Programs of `torch.export`, https://docs.pytorch.org/docs/stable/export.html, for AOTInductor and ExecuTorch."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.export import Dim

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.errors import InputError
from imdn_kd.inference.engines.base import Array
from imdn_kd.inference.export.formats import Run
from imdn_kd.inference.export.metadata import FILE
from imdn_kd.inference.export.samples import sample
from imdn_kd.inference.tiles import round_up

SUFFIXES = (".pt2",)
PACKAGES = ()
RUNTIME = "torch"


def write(network: SRNetwork, metadata: dict[str, str], path: Path) -> None:
    """See `Format.write`; a program refuses sides that become 1 px somewhere inside, so the smallest one may rise."""
    step = network.info.size_multiple
    height, width = (step * Dim(name) if step > 1 else Dim(name) for name in ("height", "width"))
    image = sample(network.info).expand(2, -1, -1, -1)  # one image at a time would become all that it takes
    with _quiet():
        try:
            program = torch.export.export(network, (image,), dynamic_shapes=({0: Dim("batch"), 2: height, 3: width},))
        except Exception as error:  # of many kinds, as torch._dynamo's
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise InputError(
                f"{type(network).__name__} cannot be exported with torch.export: {reason.strip()}; choose another "
                "format",
                code="engine.cannot-export",
            ) from error
        metadata["min_size"] = str(_smallest(program, network.info))
        torch.export.save(program, path, extra_files={FILE: json.dumps(metadata)})


def _smallest(program: torch.export.ExportedProgram, info: ModelInfo) -> int:
    """The smallest side that a program takes, px."""
    module, step = program.module(), info.size_multiple
    first = round_up(info.min_size, step)
    for side in range(first, first + 32 * step, step):
        try:
            with torch.no_grad():
                module(torch.zeros(1, info.num_in_ch, side, side))
        except (AssertionError, RuntimeError):
            continue
        return side
    return first


def read_metadata(path: Path) -> dict[str, str]:
    """See `Format.read_metadata`."""
    said = {FILE: ""}
    torch.export.load(path, extra_files=said)
    return dict(json.loads(said[FILE] or "{}"))


def load(path: Path, threads: int) -> Run:
    """See `Format.load`; PyTorch has one number of threads for all."""
    with _quiet():
        module = torch.export.load(path).module()

    @torch.no_grad()
    def run(image: Array) -> Array:
        result: Array = module(torch.from_numpy(image)).numpy()
        return result

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, and without what PyTorch logs of its own work."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
