"""The students that ship with the package: safetensors files and `index.json`, which lists them.

`index.json` holds a list of {"name", "file", "scale", "fast", "restores"}, the best student of a scale before its
others, and those that restore behind them. What a student is, how it was made and how good it is stands in the metadata
of its file, and for people in its model card.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imdn_kd.errors import InputError

FOLDER = Path(__file__).parent


_EXPECTED = {"name", "scale", "parameters", "multi_adds", "teachers", "selection", "figures"}


@dataclass(frozen=True)
class Student:
    """One entry of the zoo.

    Attributes:
        name: as the command line takes it.
        file: its name in the folder of the zoo.
        scale: the factor; 1 for one that keeps the size.
        fast: whether it is the smallest of its scale that restores nothing.
        restores: whether it removes something (noise, artefacts of JPEG, ...), so that it is taken by name alone.
    """

    name: str
    file: str
    scale: int
    fast: bool = False
    restores: bool = False

    @property
    def path(self) -> Path:
        """The model file."""
        return FOLDER / self.file


def students() -> list[Student]:
    """All students, in the order of the index.

    Raises:
        InputError: the index cannot be read.
    """
    path = FOLDER / "index.json"
    try:
        return [Student(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise InputError(
            f"{path}: cannot read it ({reason}); install the package again", code="zoo.damaged-index"
        ) from error


def find(name: str) -> Student | None:
    """The student called `name`, if there is one."""
    return next((student for student in students() if student.name == name), None)


def locate(model: str | Path) -> Path:
    """The file of a student, by its name (a string), or of a model, by its path.

    Raises:
        InputError: no such student or file.
    """
    # A Path is no name: without this, no model could be loaded while the index is being written.
    student = None if isinstance(model, Path) else find(model)
    if student is None and not Path(model).exists():
        known = ", ".join(student.name for student in students()) or "none in this version"
        raise InputError(
            f"{model}: no such model file, nor a student of the zoo (there: {known})", code="zoo.not-found"
        )
    return Path(model) if student is None else student.path


def defaults(*, fast: bool = False) -> dict[int, Student]:
    """The best student of each scale, or the fastest; none that restores, since that depends on the photograph.

    Raises:
        InputError: this version of the package ships none.
    """
    chosen: dict[int, Student] = {}
    for student in students():
        if not student.restores and (student.fast or not fast):
            chosen.setdefault(student.scale, student)
    if not chosen:
        raise InputError(
            "no student ships with this version yet; name a model file (--model FILE)", code="zoo.no-student"
        )
    return chosen


def record(path: Path) -> dict[str, Any]:
    """What `imdn-kd zoo publish` has written into a model file about its student; the weights are not read.

    Returns:
        See `imdn_kd.release.card.card`.

    Raises:
        InputError: the file cannot be read, or was made by something else.
    """
    written = _metadata(path).get("training", "{}")
    try:
        found = json.loads(written)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found.keys() >= _EXPECTED:
        raise InputError(
            f"{path}: is no student of imdn-kd zoo publish; move it elsewhere, or publish it again",
            code="zoo.not-a-student",
        )
    return found


def card(path: Path) -> str:
    """The model card of a model file of ours, Markdown; the weights are not read.

    Raises:
        InputError: the file cannot be read, or has none.
    """
    text = _metadata(path).get("card")
    if not text:
        raise InputError(
            f"{path}: has no model card; name a student, or a .safetensors file of imdn-kd train", code="zoo.no-card"
        )
    return text


def _metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file: 8 bytes with the length of the header, then this, as JSON."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size - 8:
                raise ValueError("its header is not whole")
            return dict(json.loads(file.read(length)).get("__metadata__", {}))
    except OSError as error:
        raise InputError(
            f"{path}: cannot read it ({error.strerror}); give the path of a model file", code="model.cannot-read"
        ) from error
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise InputError(
            f"{path}: is no safetensors file, or a damaged one; give one of imdn-kd train", code="model.damaged"
        ) from error
