"""The earlier runs of a student: each later run began from the weights that were in the zoo."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EarlierRun = Mapping[str, Any]
"""Plain values: `updates` (iterations), `seed`, `stages`, `losses`, `objectives`, `optimizer`, `schedule`, `ema_decay`,
`precision` (several where it changed), `teachers` (file names), `data` ({"name", "images", "sha256"}) and `start`;
otherwise as in the record of a student, see `imdn_kd.release.card.card`."""

FORMERLY = "formerly"
"""In a record: the checksums of the student's file before its card was rewritten."""

_KEPT = ("seed", "stages", "losses", "objectives", "optimizer", "schedule", "ema_decay", "start")


def earlier_runs(first_weights: str | None, path: Path, student: Mapping[str, Any] | None) -> list[EarlierRun]:
    """Which runs of a student came before a run, the oldest first.

    Args:
        first_weights: SHA-256 of the weights that the run began with; None if these were random, or are not known.
        path: of the student in the zoo.
        student: its record; None if it is not there.

    Returns:
        Those of the student and its last one, if the run began from it; those of the student, if both began from the
        same weights, so that its last run is this one or one beside it; none otherwise.
    """
    if student is None or first_weights is None:
        return []
    history = list(student.get("history", ()))
    if first_weights in (sha256(path), *student.get(FORMERLY, ())):
        return [*history, _summary(student)]
    return history if first_weights == (student["start"] or {}).get("sha256") else []


def updates_of(history: Sequence[EarlierRun]) -> int:
    """How many iterations earlier runs made together."""
    return sum(run["updates"] for run in history)


def run_updates(student: Mapping[str, Any]) -> int:
    """How many iterations the last run of a student made; older records have no other runs."""
    found: int = student.get("run_updates", student["updates"])
    return found


def sha256(path: Path) -> str:
    """The checksum of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _summary(student: Mapping[str, Any]) -> EarlierRun:
    precisions = dict.fromkeys(piece["precision"] for piece in student["pieces"] if "precision" in piece)
    return {
        "updates": run_updates(student),
        **{key: student[key] for key in _KEPT},
        "reparam": student.get("reparam"),
        "precision": ", ".join(precisions),
        "teachers": [teacher["file"] for teacher in student["teachers"]],
        "data": {key: student["data"][key] for key in ("name", "images", "sha256")},
    }
