"""What the file of a student says of it: its network, its figures, and how it was trained."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imdn_kd import zoo
from imdn_kd.config.options import check_options
from imdn_kd.data.degradation.schema import Bicubic
from imdn_kd.data.degradation.steps import describe
from imdn_kd.distill.schema import GROUND_TRUTH_OPTIONS
from imdn_kd.evaluation.benchmark import SetScore
from imdn_kd.evaluation.profile import profile
from imdn_kd.evaluation.report import report_scores
from imdn_kd.release.finished_run import RunArtifacts, tidy_options, without_none
from imdn_kd.training.history import EarlierRun, updates_of
from imdn_kd.training.run_folder import beginning
from imdn_kd.training.schema import OPEN_END, TrainOptions

OUTPUT_SIZE = (720, 1280)
"""(height, width) of the result for which multi-adds are counted, px."""


@dataclass(frozen=True)
class EvalResults:
    """Scores by upsampler (`bicubic`, `fp32`, `fp16`) and data set, and in which type the weights are stored.

    `clean`: of a student that restores, the score of the first selection set without anything to restore.
    """

    by: Mapping[str, Mapping[str, SetScore]]
    stored: str
    clean: SetScore | None = None


def build_record(
    file: TrainOptions, path: Path, run: RunArtifacts, results: EvalResults, history: Sequence[EarlierRun] = ()
) -> dict[str, Any]:
    """Describe a student in plain values, which `imdn_kd.release.card` lists.

    Args:
        file: names the run and the teachers.
        path: of the option file.
        run: what was trained.
        results: its scores.
        history: the earlier runs of the student; see `earlier_runs`.
    """
    options, trained = check_options(without_none(tidy_options(run, file)), TrainOptions, "state"), run.model.training
    last = run.entries[-1]
    train, data, made = options.train, options.datasets.train, last["data"]["train"]
    scores, network = results.by[results.stored], run.model.network
    counts = profile({file.name: network}, output_sizes=[OUTPUT_SIZE], runs=0)[0].counts
    together = last["processes"] * train.accumulation
    stages = [
        {"start": stage.start, "gt_size": stage.gt_size, "batch": together * stage.batch_size}
        for stage in data.stages()
    ]
    updates = run.updates
    objectives = {} if options.distill is None else options.distill.objectives
    # What would have counted later has done nothing.
    objectives = {name: each for name, each in objectives.items() if each.start_iter < updates}
    selected, *also = (scores[name] for name in run.selected_on)
    versions = last["versions"]
    return {
        "name": file.name,
        "scale": file.scale,
        "network": network.spec,
        "parameters": counts.parameters,
        "multi_adds": counts.multi_adds,
        "updates": updates_of(history) + updates,
        "run_updates": updates,
        "history": list(history),
        "pieces": training_segments(run.entries, updates),
        "seed": options.manual_seed,
        "stages": stages,
        "start": _first_weights(options, run.entries),
        "data": {"name": data.name, "images": made["images"], "store": data.dataroot, "sha256": made.get("sha256")}
        | ({"degradation": steps} if (steps := made.get("degradation")) not in (None, describe([Bicubic()])) else {}),
        "teachers": _teachers(file, run.options) if objectives else [],
        "losses": {name: loss.model_dump(exclude={"reduction"}) for name, loss in train.losses().items()},
        "objectives": {
            name: {"loss_weight": each.loss_weight, **each.model_dump(exclude_defaults=True)}
            for name, each in objectives.items()
        },
        "optimizer": train.optim_g.model_dump(),
        "schedule": {
            **({} if train.scheduler is None else train.scheduler.model_dump()),
            "warmup_iter": train.warmup_iter,
            "total_iter": train.total_iter,
        },
        "ema_decay": train.ema_decay,
        "reparam": None if train.reparam is None else train.reparam.model_dump(),
        **({} if train.quantize is None else {"quantize": train.quantize.model_dump()}),
        "selection": {
            "set": selected.data,
            **_figures(selected),
            "update": trained["updates"],
            "validations": run.validations,
            **({"also": [{"set": each.data, **_figures(each)} for each in also]} if also else {}),
        },
        "figures": {name: _figures(each) for name, each in scores.items() if name not in run.selected_on},
        "bicubic": {name: _figures(each) for name, each in results.by["bicubic"].items()},
        **({} if results.clean is None else {"clean": _clean(results.clean)}),
        "protocol": list(report_scores([*scores.values()]).tables[0].notes),
        "weights": results.stored,
        "rounding": {name: {kind: _psnr(results, kind, name) for kind in ("fp32", "fp16")} for name in scores},
        "options": path.name if path.is_absolute() else path.as_posix(),
        "versions": {name: versions[name] for name in ("python", "torch", "imdn_kd") if name in versions},
    }


def _first_weights(options: TrainOptions, entries: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the run began with, whatever its options say since."""
    begun = beginning(entries)
    path = options.path.pretrained if begun is None else begun["options"]["path"].get("pretrain_network_g")
    if path is None:
        return None
    name = Path(path).name if Path(path).is_absolute() else str(path)
    return {"file": name, "sha256": None if begun is None else begun.get("first_weights")}


def _clean(score: SetScore) -> dict[str, Any]:
    return {"set": score.data, "psnr": round(score.psnr, 2) if math.isfinite(score.psnr) else None}


def _figures(score: SetScore) -> dict[str, Any]:
    return {
        "images": len(score.images),
        "lr": score.lr_source,
        "psnr": round(score.psnr, 3),
        "ssim": round(score.ssim, 4),
    }


def _psnr(results: EvalResults, kind: str, data: str) -> float | None:
    return round(results.by[kind][data].psnr, 4) if kind in results.by else None


def _teachers(file: TrainOptions, options: TrainOptions) -> list[dict[str, Any]]:
    """The teachers of a run; their files are looked for where the run found them, and where the option file says."""
    if options.distill is None:
        return []
    elsewhere = {Path(each.weights).name: each.weights for each in file.teachers()}
    return [
        {
            "file": (name := Path(each.weights).name),
            "sha256": _checksum(each.weights, elsewhere.get(name)),
            "type": each.type,
            "self_ensemble": each.self_ensemble,
            "weight": each.weight,
        }
        for each in options.teachers()
    ]


def _checksum(*places: str | None) -> str | None:
    """SHA-256 of the first file that is there; a place is a path, or the name of a student."""
    for place in filter(None, places):
        path = Path(place)
        if not path.is_file() and (student := zoo.find(place)) is not None:
            path = student.path
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return None


def training_segments(entries: Sequence[Mapping[str, Any]], end: int) -> list[dict[str, Any]]:
    """The segments of a training, in each of which the settings are the same.

    Args:
        entries: of `run.json`, each time that the run was begun or resumed: `step`, `options`, `processes`.
        end: iterations in all.

    Returns:
        {"from", "to", "known"} and the settings, plain values, by what they are called in `_settings`; `from` counted
        from 1. Neighbours differ. Of iterations of which nothing is known there are no settings, and `known` is false.
    """
    first = entries[0]["step"]
    found: list[dict[str, Any]] = [{"from": 1, "to": first, "known": False}] if first else []
    for entry in entries:
        # What was trained beyond the state that was resumed from is lost.
        found = [{**each, "to": min(each["to"], entry["step"])} for each in found if each["from"] <= entry["step"]]
        found.append({"from": entry["step"] + 1, "to": end, "known": True, **_settings(entry)})
    merged: list[dict[str, Any]] = []
    for segment in (each for each in found if each["from"] <= each["to"]):
        if merged and {**merged[-1], "from": 0, "to": 0} == {**segment, "from": 0, "to": 0}:
            merged[-1]["to"] = segment["to"]
        else:
            merged.append(segment)
    return merged


def _settings(entry: Mapping[str, Any]) -> dict[str, Any]:
    options = entry["options"]
    train, data = options["train"], options["datasets"]["train"]
    distill = options.get("distill") or {"objectives": {}}
    return {
        "precision": train["precision"],
        "learning rate": _phase(train, entry["step"]),
        "base rate": train["optim_g"]["lr"],
        "batch": entry["processes"] * train["accumulation"] * data["batch_size_per_gpu"],
        "patch": data["gt_size"],
        "average": train["ema_decay"],
        "data": f"{entry['data']['train']['images']} images of {data['name']}",
        "losses": _summed(train[option] for option in GROUND_TRUTH_OPTIONS.values() if train.get(option)),
        "objectives": _summed(distill["objectives"].values()),
        "seed": options["manual_seed"],
    }


def _phase(train: Mapping[str, Any], step: int) -> str:
    """What the learning rate did from an iteration on."""
    scheduler = train["scheduler"]
    if scheduler is None:
        return "constant"
    if scheduler["type"] != "WarmupStableDecayLR":
        return str(scheduler["type"])
    if train["total_iter"] == OPEN_END:
        return "constant"
    begun = step >= train["total_iter"] - scheduler["decay_iter"]
    return "decays" if begun else f"constant, decays over the last {scheduler['decay_iter']:,} iterations"


def _summed(losses: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join(f"{each['loss_weight']:g} {each['type']}" for each in losses) or "none"
