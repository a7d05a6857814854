"""The students that ship with the package: safetensors files and `index.json`, which lists them.

`index.json` holds a list of {"name", "file", "scale", "fast"}, the best student of a scale before the others of that
scale.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from imdn_kd.errors import InputError

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Student:
    """One entry of the zoo; `fast` marks the smallest student of a scale."""

    name: str
    file: str
    scale: int
    fast: bool = False

    @property
    def path(self) -> Path:
        """The model file."""
        return FOLDER / self.file


def students() -> list[Student]:
    """All students, in the order of the index."""
    index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    return [Student(**entry) for entry in index]


def find(name: str) -> Student | None:
    """The student called `name`, if there is one."""
    return next((student for student in students() if student.name == name), None)


def defaults(*, fast: bool = False) -> dict[int, Student]:
    """The best student of each scale, or the fastest.

    Raises:
        InputError: this version of the package ships none.
    """
    chosen: dict[int, Student] = {}
    for student in students():
        if student.fast or not fast:
            chosen.setdefault(student.scale, student)
    if not chosen:
        raise InputError("no student ships with this version yet; name a model file (--model FILE)")
    return chosen
