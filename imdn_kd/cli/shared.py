"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import Annotated

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


def parse_size(text: str) -> tuple[int, int]:
    """Read `WIDTHxHEIGHT` as (height, width); raises InputError."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.strip().lower())
    if match is None:
        raise InputError(f"{text!r} is not a size; write WIDTHxHEIGHT in px, as in 3840x2160")
    return int(match[2]), int(match[1])


def parse_memory(text: str) -> int:
    """Read `2GiB`, `500MB` or a number of bytes; raises InputError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?", text.strip().lower())
    if match is None or match[2] not in _UNITS:
        raise InputError(f"{text!r} is not an amount of memory; write a number with a unit, as in 2GiB or 500MB")
    amount = float(match[1]) * _UNITS[match[2]]
    if amount > 2**63:
        raise InputError(f"{text[:20]!r}... is more memory than any machine has; write as much as may be used")
    return int(amount)


Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="FILE|MODULE", help="Your own file or module that registers networks or losses, my_nets.py."
    ),
]
Model = Annotated[
    str | None, typer.Option("--model", "-m", help="Name of a student, or a model file (.safetensors, .pth).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Of the arithmetic; auto is bf16 on GPUs, else fp32.")
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
        help="What may be taken, images aside, as in 2GiB; by default half of what is free.",
    ),
]
Scratch = Annotated[Path | None, typer.Option(help="Folder for features that do not fit into memory.")]
SelfEnsemble = Annotated[bool, typer.Option("--self-ensemble", help="Average over 8 flips and turns: 8 x the time.")]
