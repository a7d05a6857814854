"""From a run to a student of the zoo: scored, described, and written."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imdn_kd import zoo
from imdn_kd.data.degradation.schema import Bicubic, Noise
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import BICUBIC, SetScore, Upsampler, bicubic, make_upsampler, plan_tasks, score
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.release.card import card
from imdn_kd.release.finished_run import RunArtifacts, open_run
from imdn_kd.release.record import EvalResults, build_record
from imdn_kd.training.history import FORMERLY, earlier_runs, sha256
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.timed import is_complete
from imdn_kd.training.validation import reported_on
from imdn_kd.utils.files import atomic_path, check_folder, remove_leftovers

TOLERANCE = 0.001
"""What rounding the weights to fp16 may cost on any data set, dB."""

SUFFIX_OF_MODELS = ".safetensors"


@dataclass(frozen=True)
class Published:
    """What became of a run.

    Attributes:
        path: the student's file.
        replaced: whether it holds the weights of the run now.
        data: the sets for selection.
        psnr: of the run on these, dB, their mean.
        before: of the student that was there, dB; None if there was none.
        scores: of bicubic and the run on all sets; of the weights as they are stored.
    """

    path: Path
    replaced: bool
    data: str
    psnr: float
    before: float | None
    scores: tuple[SetScore, ...]


def publish(
    file: TrainOptions,
    path: Path,
    *,
    root: Path,
    folder: Path,
    notes: str = "",
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> Published:
    """Make a student of the selected weights of a run, unless the one that is there is better, or as good and no older.

    Nothing is written before all is scored; `index.json` is written last, so that the zoo works at any moment. What a
    killed command has left undone, the next one does. At the very end, if the run is complete, `published.json` in
    its folder says at which iteration it was published.

    Args:
        file: gives the name of the run and the data sets to measure on; what was trained is taken from the run.
        path: of the option file, for the card.
        root: folder of all runs.
        folder: of the zoo; made if it is not there.
        notes: on data and licences, for the card; empty: those of the student that is there, if it has seen the same
            photographs.
        on_image: called with the number of enlarged images that are done, and of all.

    Raises:
        InputError: the run has no selected weights, was selected on a set that results are reported on, or cannot be
            compared with the student that is there; or a file cannot be read or written.
    """
    place = RunFolder(root / file.name)
    run = open_run(file, place)
    target = folder / f"{file.name}{SUFFIX_OF_MODELS}"
    check_folder(target)
    there = {each: zoo.record(each) for each in _models(folder)}
    results = _measure(file, run, on_image)
    before = there.get(target)
    history = earlier_runs(run.first_weights, target, before)
    record, stored = build_record(file, path, run, results, history), results.by[results.stored]
    record["notes"] = notes or _notes_on(record, before)
    if before is not None:
        _check_comparable(target, before, record)
    replaced = before is None or _rank(before) < _rank(record)
    remove_leftovers(folder, deep=False)
    if before is not None and not replaced and notes and notes != before.get("notes"):
        rewrite_card(target, notes)
    if replaced:
        model = ModelFile(run.model.network, run.model.value_range, record, card(record))
        save_model(target, model, dtype=torch.float16 if results.stored == "fp16" else None)
    # Also where the student is kept: a command that was killed may have left these undone.
    _write_text(target.with_suffix(".md"), zoo.card(target))
    _write_text(folder / "index.json", _index(folder))
    if is_complete(run.state):
        _write_text(place.published, json.dumps({"iteration": run.state.step}) + "\n")
    return Published(
        target,
        replaced,
        " and ".join(run.selected_on),
        selection_psnr(record),
        None if before is None else selection_psnr(before),
        (
            *(dataclasses.replace(each, model=bicubic(file.scale).name) for each in results.by[BICUBIC].values()),
            *(dataclasses.replace(each, model=file.name) for each in stored.values()),
        ),
    )


def _measure(file: TrainOptions, run: RunArtifacts, on_image: Callable[[int, int], None]) -> EvalResults:
    """Score the selected weights, as they are and rounded, and bicubic."""
    tested, validated = (file.datasets.measured(phase) for phase in ("test", "val"))
    chosen = [dataset for dataset in validated if dataset.name in run.selected_on]
    for name in run.selected_on:
        if name not in [dataset.name for dataset in chosen]:
            raise InputError(
                f"datasets.val: has no {name}, on which the weights were selected; say where it is",
                code="zoo.no-selection-set",
            )
    if not tested:
        raise InputError("datasets.test: there is nothing to report on; give data sets", code="zoo.no-test-set")
    models = {"fp32": run.model} | ({} if (rounded := _rounded(run.model)) is None else {"fp16": rounded})
    device = "cpu" if file.num_gpu == 0 else "auto"
    # The baseline has another name at scale 1.
    upsamplers: list[Upsampler] = [dataclasses.replace(bicubic(file.scale), name=BICUBIC)]
    upsamplers += [
        make_upsampler(Upscaler(model, device=device, precision="fp32", engine="torch"), kind, file.scale)
        for kind, model in models.items()
    ]
    tasks = plan_tasks(upsamplers, [dataset.source(file.scale) for dataset in (*tested, *chosen)])
    sets = [task.images for task in tasks if task.upsampler is upsamplers[0]]
    for images in sets[len(tested) :]:
        if reported_on(images, sets[: len(tested)]):
            raise InputError(
                f"val.select_on: {images.name} is a data set that results are reported on, and weights selected on it "
                "would flatter them; train with a selection on other photographs",
                code="train.select-on-benchmark",
            )
    done, total = 0, sum(len(task.images.pairs) for task in tasks)

    def count(_: int) -> None:
        nonlocal done
        done += 1
        on_image(done, total)

    by: dict[str, dict[str, SetScore]] = {each.name: {} for each in upsamplers}
    for task in tasks:
        by[task.upsampler.name][task.images.name] = score(task, on_image=count)
    clean = None
    if chosen[0].degradation or file.scale == 1:
        # What it does to photographs that need no restoration.
        steps = (Noise(type="noise", sigma=0.0),) if file.scale == 1 else (Bicubic(),)
        source = dataclasses.replace(chosen[0].source(file.scale), lr=None, steps=steps)
        clean = score(plan_tasks(upsamplers[1:2], [source])[0], on_image=lambda done: None)
    costs = [by["fp32"][data].psnr - figures.psnr for data, figures in by.get("fp16", {}).items()]
    return EvalResults(by, "fp16" if costs and max(costs) <= TOLERANCE else "fp32", clean)


def _rounded(model: ModelFile) -> ModelFile | None:
    """The weights as fp16 holds them; None if it cannot hold them."""
    network = copy.deepcopy(model.network)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        return None
    return dataclasses.replace(model, network=network)


def _rank(record: Mapping[str, Any]) -> tuple[float, int]:
    """What makes a student the better one; of the same weights, those of more iterations count."""
    return selection_psnr(record), record["updates"]


def selection_psnr(record: Mapping[str, Any]) -> float:
    """The mean PSNR of a student over the sets that its weights were selected on, dB."""
    return _mean_psnr(record, _selection_sets(record))


def _selection_sets(record: Mapping[str, Any]) -> list[str]:
    return [each["set"] for each in (record["selection"], *record["selection"].get("also", ()))]


def _common_sets(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The sets that a student was selected on and all were measured on; what is only reported on ranks nothing."""
    chosen = {name for record in records for name in _selection_sets(record)}
    return sorted(chosen.intersection(*(_psnr_by_set(record) for record in records)))


def _mean_psnr(record: Mapping[str, Any], sets: Sequence[str]) -> float:
    by_set = _psnr_by_set(record)
    return sum(by_set[name] for name in sets) / len(sets) if sets else 0.0


def _psnr_by_set(record: Mapping[str, Any]) -> dict[str, float]:
    """Of the sets that were reported on, and of those for selection."""
    selection = record["selection"]
    chosen = {each["set"]: each["psnr"] for each in (selection, *selection.get("also", ()))}
    return {name: figures["psnr"] for name, figures in record["figures"].items()} | chosen


def _notes_on(record: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    """The notes of the student that was there, if they are on the same photographs."""
    same = before is not None and before["data"] == record["data"]
    return str(before.get("notes", "")) if before is not None and same else ""


def rewrite_card(path: Path, notes: str | None = None) -> None:
    """Write the card of a student again; the weights stay, and runs that began with it know it by its former checksum.

    Args:
        path: of the student.
        notes: on data and licences; None: as they are.

    Raises:
        InputError: the file cannot be read or written, or is no student.
    """
    record, model = zoo.record(path), load_model(path)
    told = {**record, FORMERLY: [*record.get(FORMERLY, ()), sha256(path)]}
    told |= {} if notes is None else {"notes": notes}
    dtype = torch.float16 if record["weights"] == "fp16" else None
    save_model(path, dataclasses.replace(model, training=told, card=card(told)), dtype=dtype)
    _write_text(path.with_suffix(".md"), zoo.card(path))


def _check_comparable(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, sort in (("set", "selected on"), ("images", "selected on a set with a number of images of")):
        old, new = (
            ", ".join(sorted(str(each[key]) for each in (record["selection"], *record["selection"].get("also", ()))))
            for record in (before, now)
        )
        if old != new:
            raise InputError(
                f"{path}: was {sort} {old}, the run {new}, so that they cannot be compared; select on the same "
                "photographs, or move that file away",
                code="zoo.not-comparable",
            )
    if before["scale"] != now["scale"]:
        raise InputError(
            f"{path}: enlarges by {before['scale']}, the run by {now['scale']}; give the run another name",
            code="zoo.not-comparable",
        )


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_bytes() != text.encode():
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _models(folder: Path) -> Sequence[Path]:
    """The students in the folder of a zoo; not what a killed command has left."""
    return sorted(path for path in folder.glob(f"*{SUFFIX_OF_MODELS}") if not path.name.startswith("."))


def _index(folder: Path) -> str:
    """The index of all students: by scale, those that restore last, and the best first."""
    groups: dict[tuple[int, bool], list[tuple[Path, Mapping[str, Any]]]] = {}
    for path in _models(folder):
        record = zoo.record(path)
        groups.setdefault((record["scale"], "clean" in record), []).append((path, record))
    entries = []
    for (scale, restores), students in sorted(groups.items()):
        common = _common_sets([record for _, record in students])
        students.sort(key=lambda each: -_mean_psnr(each[1], common))
        # Of several that are as small, the best.
        fast, _ = min(students, key=lambda each: each[1]["parameters"])
        entries += [
            {
                "name": path.stem,
                "file": path.name,
                "scale": scale,
                "fast": path == fast and not restores,
                "restores": restores,
            }
            for path, _ in students
        ]
    return json.dumps(entries, indent=2) + "\n"
