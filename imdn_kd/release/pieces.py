"""What was not the same in all pieces of a training that was gone on with under other settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from imdn_kd.distill.schema import GROUND_TRUTH_OPTIONS


def pieces(entries: Sequence[Mapping[str, Any]], end: int) -> list[dict[str, Any]]:
    """The pieces of a training, from its first update to its last.

    Args:
        entries: of `run.json`, each time that the run was begun or gone on with: `step`, `options`, `processes`.
        end: updates in all.

    Returns:
        {"from", "to", "known"} and the settings, plain values, by what they are called in `_settings`; `from` counted
        from 1. Neighbours differ. Of updates of which nothing is known there are no settings, and `known` is false.
    """
    first = entries[0]["step"]
    found: list[dict[str, Any]] = [{"from": 1, "to": first, "known": False}] if first else []
    for entry in entries:
        # What was trained beyond the state that was gone on from is lost.
        found = [{**piece, "to": min(piece["to"], entry["step"])} for piece in found if piece["from"] <= entry["step"]]
        found.append({"from": entry["step"] + 1, "to": end, "known": True, **_settings(entry)})
    merged: list[dict[str, Any]] = []
    for piece in (each for each in found if each["from"] <= each["to"]):
        if merged and {**merged[-1], "from": 0, "to": 0} == {**piece, "from": 0, "to": 0}:
            merged[-1]["to"] = piece["to"]
        else:
            merged.append(piece)
    return merged


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    options = entry["options"]
    train, data = options["train"], options["datasets"]["train"]
    distill = options.get("distill") or {"objectives": {}}
    return {
        "precision": train["precision"],
        "base rate": train["optim_g"]["lr"],
        "batch": entry["processes"] * train["accumulation"] * data["batch_size_per_gpu"],
        "patch": data["gt_size"],
        "average": train["ema_decay"],
        "data": f"{entry['data']['train']['images']} images of {data['name']}",
        "losses": _summed(train[option] for option in GROUND_TRUTH_OPTIONS.values() if train.get(option)),
        "objectives": _summed(distill["objectives"].values()),
        "seed": options["manual_seed"],
    }


def _summed(losses: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['loss_weight']:g} {each['type']}" for each in losses) or "none"
