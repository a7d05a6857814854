"""What was not the same in all pieces of a training that was gone on with under other settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Piece = Mapping[str, Any]


def pieces(entries: Sequence[Mapping[str, Any]], end: int, earlier: Sequence[Piece] = ()) -> list[dict[str, Any]]:
    """The pieces of a training, from its first update to its last.

    Args:
        entries: of `run.json`, each time that the run was begun or gone on with: `step`, `options`, `processes`.
        end: updates in all.
        earlier: the pieces of the student from whose state the run went on; empty if it began by itself.

    Returns:
        {"from", "to", "precision", "lr", "batch", "seed"}, `from` counted from 1. Neighbours differ. Updates of which
        nothing is known have None for all settings.
    """
    first = entries[0]["step"]
    found = [dict(piece) for piece in earlier]
    if first > (found[-1]["to"] if found else 0):
        known = found[-1]["to"] if found else 0
        found.append({"from": known + 1, "to": first, **dict.fromkeys(("precision", "lr", "batch", "seed"))})
    for entry in entries:
        # What was trained beyond the state that was gone on from is lost.
        found = [{**piece, "to": min(piece["to"], entry["step"])} for piece in found if piece["from"] <= entry["step"]]
        found.append({"from": entry["step"] + 1, "to": end, **_settings(entry)})
    merged: list[dict[str, Any]] = []
    for piece in (each for each in found if each["from"] <= each["to"]):
        if merged and all(merged[-1][key] == piece[key] for key in piece if key not in ("from", "to")):
            merged[-1]["to"] = piece["to"]
        else:
            merged.append(piece)
    return merged


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    options = entry["options"]
    train, data = options["train"], options["datasets"]["train"]
    return {
        "precision": train["precision"],
        "lr": train["optim_g"]["lr"],
        "batch": entry["processes"] * train["accumulation"] * data["batch_size_per_gpu"],
        "seed": options["manual_seed"],
    }
