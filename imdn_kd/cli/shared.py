"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from imdn_kd.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class Crop(str, Enum):
    """Values of `imdn_kd.inference.cropping.CropMode`, repeated here since that module takes seconds to import."""

    exact = "exact"
    local = "local"
    paper = "paper"
    whole = "whole"


class Precision(str, Enum):
    """Values of `imdn_kd.inference.device.Precision`."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


def import_own(names: list[str] | None) -> None:
    """Import what `--import` names, as seen from the working folder; raises InputError."""
    from imdn_kd.config.imports import import_user_code

    import_user_code(names or [], Path(), "--import")


def parse_memory(text: str) -> int:
    """Read `2GiB`, `500MB` or a number of bytes; raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise InputError(
            f"{text!r} is not an amount of memory; write a number with a unit, as in 2GiB or 500MB", code="cli.memory"
        )
    amount = float(match[1]) * _UNITS[match[2]]
    if amount > 2**63:
        raise InputError(
            f"{text[:20]!r}... is more memory than any machine has; write as much as may be used", code="cli.memory"
        )
    return int(amount)


def parse_arch(text: str) -> dict[str, Any]:
    """Read `EDSR`, or `EDSR: {num_feat: 64}`, as `{"type": "EDSR", "num_feat": 64}`; raises InputError."""
    from imdn_kd.config.yaml import Document

    content = Document(text, lambda _: f"--arch {text!r}").content
    content = {content: {}} if isinstance(content, str) else content
    if isinstance(content, dict) and len(content) == 1:
        ((name, options),) = content.items()
        if isinstance(name, str) and isinstance(options, dict):
            return {"type": name, **options}
    raise InputError(
        f"--arch {text!r}: write the type of a network, as imdn or EDSR, or with options: 'EDSR: {{num_feat: 64}}'",
        code="cli.arch",
    )


class NetworkOptions(NamedTuple):
    """What a BasicSR option file says of its network; see `read_network`."""

    spec: dict[str, Any]
    weights: str | None
    key: str | None


def read_network(path: Path) -> NetworkOptions:
    """Read `network_g` and its weights from any option file, for training or testing; raises InputError."""
    from imdn_kd.config.options import import_named_in, merged_options

    content = merged_options(path)
    import_named_in(path)
    spec, paths = content.get("network_g"), content.get("path") or {}
    if not isinstance(spec, dict) or not isinstance(paths, dict):
        raise InputError(f"{path}: has no network_g; give an option file with one", code="options.no-network")
    weights = paths.get("pretrain_network_g") or paths.get("pretrain_model_g")
    key = paths.get("param_key_g")
    return NetworkOptions(spec, None if weights is None else str(weights), None if key is None else str(key))


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and no report: only warnings, errors, and what --json asks.")
]
Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="FILE|MODULE", help="Your own file or module that registers networks or losses, my_nets.py."
    ),
]


def complete_students(incomplete: str) -> list[str]:
    """Names of students for completion in shells, which look for files where this gives none."""
    from imdn_kd import zoo

    return [student.name for student in zoo.students() if student.name.startswith(incomplete)]


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        autocompletion=complete_students,
        help="Name of a student, a model file, or any checkpoint that spandrel knows.",
    ),
]
Arch = Annotated[
    str | None,
    typer.Option(
        "--arch",
        "-a",
        metavar="TYPE",
        help="Network of model files that do not say it: EDSR, or with options: 'EDSR: {num_feat: 64}'.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision",
        help="Compute precision (auto: lossless to 8 bit, which is fp32; bf16 and fp16 are faster on GPUs).",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine",
        help="What runs the network on the CPU: torch, onnxruntime, openvino, ncnn, torch-compile, or auto, the "
        "fastest that is installed (torch-compile left out, which takes long to get ready).",
    ),
]
CropOption = Annotated[Crop, typer.Option("--crop", help="How images that are large for the memory are cut.")]
CropSize = Annotated[
    int | None, typer.Option(min=1, help="Side of the crops in px, instead of planning from the memory.")
]
Memory = Annotated[
    int | None,
    typer.Option(
        parser=parse_memory,
        metavar="BYTES",
        help="Memory of the process without the images, e.g. 2GiB; PyTorch takes .8 GB of it, or of less than "
        "1.2 GB on top (default: half of what is free).",
    ),
]
Scratch = Annotated[Path | None, typer.Option(help="Folder for features that do not fit into memory.")]
SelfEnsemble = Annotated[bool, typer.Option("--self-ensemble", help="Average over 8 flips and turns: 8 x the time.")]
