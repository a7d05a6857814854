"""From a run to a student of the zoo: scored, described, and written with the state from which training goes on."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

from imdn_kd import zoo
from imdn_kd.errors import InputError
from imdn_kd.evaluation.benchmark import Contestant, SetScore, bicubic, contestant, plan, score
from imdn_kd.evaluation.profile import profile
from imdn_kd.evaluation.report import report_scores
from imdn_kd.files import atomic_path, check_folder, remove_leftovers
from imdn_kd.inference.model_file import ModelFile, load_model, save_model
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.option_files import check_options
from imdn_kd.training.card import card
from imdn_kd.training.checkpoint import FORMAT, SUFFIX, State, newest_state
from imdn_kd.training.options import TrainOptions
from imdn_kd.training.pieces import Piece, pieces
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.validation import reported_on

TOLERANCE = 0.001
"""What rounding the weights to fp16 may cost on any data set, dB."""

OUTPUT_SIZE = (720, 1280)
"""(height, width) of the result for which multi-adds are counted, px."""

STATES = "states"
"""Folder in that of the zoo for the states from which training goes on."""

SUFFIX_OF_MODELS = ".safetensors"


@dataclass(frozen=True)
class Published:
    """What became of a run.

    Attributes:
        path: the student's file.
        replaced: whether it holds the weights of the run now.
        data: the set for selection.
        psnr: of the run on this, dB.
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
    """Make a student of the selected weights of a run, unless the one that is there is as good or better.

    Nothing is written before all is scored; `index.json` is written last, so that the zoo works at any moment. What a
    killed command has left undone, the next one does.

    Args:
        file: gives the name of the run and the data sets to measure on; what was trained is taken from the run.
        path: of the option file, for the card.
        root: folder of all runs.
        folder: of the zoo; made if it is not there.
        notes: on data and licences, for the card.
        on_image: called with the number of enlarged images that are done, and of all.

    Raises:
        InputError: the run has no selected weights, was selected on a set that results are reported on, or cannot be
            compared with the student that is there; or a file cannot be read or written.
    """
    run = _open_run(file, RunFolder(root / file.name))
    target = folder / f"{file.name}{SUFFIX_OF_MODELS}"
    check_folder(target)
    there = {each: zoo.record(each) for each in _models(folder)}
    measured = _measure(file, run, on_image)
    before = there.get(target)
    earlier = before["pieces"] if before is not None else []
    record, stored = _describe(file, path, run, measured, earlier), measured.by[measured.stored]
    if before is not None:
        _check_comparable(target, before, record)
    replaced = before is None or before["selection"]["psnr"] < record["selection"]["psnr"]
    remove_leftovers(folder)
    if replaced:
        _write_state(folder / STATES / f"{file.name}{SUFFIX}", run.state, _tidy(run.state.options, file))
        model = ModelFile(run.model.network, run.model.value_range, record, card(record, notes))
        save_model(target, model, dtype=torch.float16 if measured.stored == "fp16" else None)
    # Also where the student is kept: a command that was killed may have left these undone.
    _write_text(target.with_suffix(".md"), zoo.card(target))
    _write_text(folder / "index.json", _index(folder))
    return Published(
        target,
        replaced,
        record["selection"]["set"],
        record["selection"]["psnr"],
        None if before is None else before["selection"]["psnr"],
        (*measured.by["bicubic"].values(), *(dataclasses.replace(each, model=file.name) for each in stored.values())),
    )


@dataclass(frozen=True)
class _Run:
    """What was trained.

    Attributes:
        state: the newest one.
        options: its options.
        model: the selected weights.
        entries: of `run.json`, for each time that it was begun or gone on with.
        validations: how often the set for selection was scored.
    """

    state: State
    options: TrainOptions
    model: ModelFile
    entries: Sequence[Mapping[str, Any]]
    validations: int

    @property
    def selected_on(self) -> str:
        assert self.options.val is not None  # noqa: S101 - _open_run has looked
        return str(self.options.val.select_on)


@dataclass(frozen=True)
class _Measured:
    """Scores by contestant (`bicubic`, `fp32`, `fp16`) and data set; and in which type the weights are stored."""

    by: Mapping[str, Mapping[str, SetScore]]
    stored: str


def _open_run(file: TrainOptions, folder: RunFolder) -> _Run:
    train = "train it first: imdn-kd train -opt FILE"
    if not folder.path.is_dir():
        raise InputError(f"{folder.path}: there is no such run; {train}, or say where it is (--root)")
    state = newest_state(folder.states)
    if state is None:
        raise InputError(f"{folder.states}: has no training states; {train}")
    options = check_options(_given(state.options), TrainOptions, f"{folder.states}, update {state.step}")
    if options.scale != file.scale:
        raise InputError(f"{folder.path}: was trained for x{options.scale}, but scale is {file.scale}; correct it")
    selected = folder.models / "net_g_best_psnr.safetensors"
    if not selected.is_file() or options.val is None or options.val.select_on is None:
        raise InputError(f"{selected}: no weights were selected in this run; give val.select_on, and go on with it")
    try:
        entries = json.loads(folder.record.read_text(encoding="utf-8"))
        entries[-1]["data"]["train"]
        # The last line is one that a killed run has not finished, or empty.
        lines = map(json.loads, folder.metrics.read_text(encoding="utf-8").split("\n")[:-1])
        validations = sum(options.val.select_on in line.get("scores", ()) for line in lines)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot read it ({error.strerror}); the run folder is not whole") from error
    except (ValueError, LookupError, AttributeError) as error:
        raise InputError(f"{folder.path}: run.json or metrics.jsonl is damaged; restore them") from error
    return _Run(state, options, load_model(selected), entries, validations)


def _measure(file: TrainOptions, run: _Run, on_image: Callable[[int, int], None]) -> _Measured:
    """Score the selected weights, as they are and rounded, and bicubic."""
    name, tested = run.selected_on, file.datasets.measured("test")
    chosen = next((dataset for dataset in file.datasets.measured("val") if dataset.name == name), None)
    if chosen is None:
        raise InputError(f"datasets.val: has no {name}, on which the weights were selected; say where it is")
    if not tested:
        raise InputError("datasets.test: there is nothing to report on; give data sets")
    models = {"fp32": run.model} | ({} if (rounded := _rounded(run.model)) is None else {"fp16": rounded})
    device = "cpu" if file.num_gpu == 0 else "auto"
    contestants: list[Contestant] = [bicubic(file.scale)]
    contestants += [
        contestant(Upscaler(model, device=device, precision="fp32"), kind, file.scale) for kind, model in models.items()
    ]
    tasks = plan(contestants, [dataset.source() for dataset in (*tested, chosen)])
    sets = [task.images for task in tasks if task.contestant is contestants[0]]
    if reported_on(sets[-1], sets[:-1]):
        raise InputError(
            f"val.select_on: {name} is a data set that results are reported on, and weights selected on it would "
            "flatter them; train with a selection on other photographs"
        )
    done, total = 0, sum(len(task.images.pairs) for task in tasks)

    def count(_: int) -> None:
        nonlocal done
        done += 1
        on_image(done, total)

    by: dict[str, dict[str, SetScore]] = {each.name: {} for each in contestants}
    for task in tasks:
        by[task.contestant.name][task.images.name] = score(task, on_image=count)
    costs = [by["fp32"][data].psnr - figures.psnr for data, figures in by.get("fp16", {}).items()]
    return _Measured(by, "fp16" if costs and max(costs) <= TOLERANCE else "fp32")


def _rounded(model: ModelFile) -> ModelFile | None:
    """The weights as fp16 holds them; None if it cannot hold them."""
    network = copy.deepcopy(model.network)
    for value in network.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        return None
    return dataclasses.replace(model, network=network)


def _describe(
    file: TrainOptions, path: Path, run: _Run, measured: _Measured, earlier: Sequence[Piece]
) -> dict[str, Any]:
    """What the student's file says of it: see `card`."""
    options, trained = check_options(_given(_tidy(run.state.options, file)), TrainOptions, "state"), run.model.training
    last = run.entries[-1]
    train, data, made = options.train, options.datasets.train, last["data"]["train"]
    scores, network = measured.by[measured.stored], run.model.network
    counts = profile({file.name: network}, output_sizes=[OUTPUT_SIZE], runs=0)[0].counts
    together = last["processes"] * train.accumulation
    stages = [
        {"start": stage.start, "gt_size": stage.gt_size, "batch": together * stage.batch_size}
        for stage in data.stages()
    ]
    updates = max(run.state.step, trained["updates"])
    objectives = {} if options.distill is None else options.distill.objectives
    selected, versions = scores[run.selected_on], last["versions"]
    return {
        "name": file.name,
        "scale": file.scale,
        "network": network.spec,
        "parameters": counts.parameters,
        "multi_adds": counts.multi_adds,
        "updates": updates,
        "pieces": pieces(run.entries, updates, earlier),
        "seed": options.manual_seed,
        "batch": trained["batch"],
        "gt_size": trained["gt_size"],
        "stages": stages,
        "start": options.path.pretrained,
        "data": {"name": data.name, "images": made["images"], "store": data.dataroot, "sha256": made.get("sha256")},
        "teachers": _teachers(file, run.options),
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
        "precision": train.precision,
        "selection": {
            "set": selected.data,
            **_figures(selected),
            "update": trained["updates"],
            "validations": run.validations,
        },
        "figures": {name: _figures(each) for name, each in scores.items() if name != selected.data},
        "bicubic": {name: _figures(each) for name, each in measured.by["bicubic"].items()},
        "protocol": list(report_scores([*scores.values()]).tables[0].notes),
        "weights": measured.stored,
        "rounding": {name: {kind: _psnr(measured, kind, name) for kind in ("fp32", "fp16")} for name in scores},
        "options": path.name if path.is_absolute() else path.as_posix(),
        "versions": {name: versions[name] for name in ("python", "torch", "imdn_kd") if name in versions},
    }


def _figures(score: SetScore) -> dict[str, Any]:
    return {
        "images": len(score.images),
        "lr": score.lr_source,
        "psnr": round(score.psnr, 3),
        "ssim": round(score.ssim, 4),
    }


def _psnr(measured: _Measured, kind: str, data: str) -> float | None:
    return round(measured.by[kind][data].psnr, 4) if kind in measured.by else None


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


def _check_comparable(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key, sort in (("set", "selected on"), ("images", "selected on a set with a number of images of")):
        if before["selection"][key] != now["selection"][key]:
            raise InputError(
                f"{path}: was {sort} {before['selection'][key]}, the run {now['selection'][key]}, so that they cannot "
                "be compared; select on the same photographs, or move that file away"
            )
    if before["scale"] != now["scale"]:
        raise InputError(f"{path}: enlarges by {before['scale']}, the run by {now['scale']}; give the run another name")


def _given(options: Any) -> Any:  # noqa: ANN401 - plain values
    """Options without what is None, which stands for keys that were not given."""
    if isinstance(options, Mapping):
        return {key: _given(value) for key, value in options.items() if value is not None}
    return [_given(value) for value in options] if isinstance(options, list) else options


def _tidy(options: Mapping[str, Any], file: TrainOptions) -> dict[str, Any]:
    """The options of a state, without absolute paths, which say nothing elsewhere: those of the option file instead."""
    tidy: dict[str, Any] = _relative(options, file.model_dump(mode="json"))
    return tidy


def _relative(value: Any, other: Any) -> Any:  # noqa: ANN401 - plain values
    if isinstance(value, Mapping):
        others = other if isinstance(other, Mapping) else {}
        return {key: _relative(item, others.get(key)) for key, item in value.items()}
    if isinstance(value, list):
        both = zip_longest(value, other if isinstance(other, list) else ())
        return [_relative(item, theirs) for item, theirs in both][: len(value)]
    if not isinstance(value, str) or not Path(value).is_absolute():
        return value
    return other if isinstance(other, str) and not Path(other).is_absolute() else Path(value).name


def _write_state(path: Path, state: State, options: dict[str, Any]) -> None:
    small = dataclasses.replace(state, options=options, window={})
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, **vars(small)}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _write_text(path: Path, text: str) -> None:
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def _models(folder: Path) -> Sequence[Path]:
    """The students in the folder of a zoo; not what a killed command has left."""
    return sorted(path for path in folder.glob(f"*{SUFFIX_OF_MODELS}") if not path.name.startswith("."))


def _index(folder: Path) -> str:
    """The index of all students: by scale, and the best on its set for selection first."""
    records = [(path, zoo.record(path)) for path in _models(folder)]
    records.sort(key=lambda each: (each[1]["scale"], -each[1]["selection"]["psnr"]))
    smallest: dict[int, int] = {}
    for _, record in records:
        scale, parameters = record["scale"], record["parameters"]
        smallest[scale] = min(parameters, smallest.get(scale, parameters))
    entries, fast = [], set()
    for path, record in records:
        scale = record["scale"]
        first = scale not in fast and record["parameters"] == smallest[scale]
        fast |= {scale} if first else set()
        entries.append({"name": path.stem, "file": path.name, "scale": scale, "fast": first})
    return json.dumps(entries, indent=2) + "\n"
