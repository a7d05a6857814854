"""A run of which a student is to be made, as its folder holds it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from imdn_kd.config.options import check_options
from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import ModelFile, load_model
from imdn_kd.training.checkpoint import State, newest_state
from imdn_kd.training.run_folder import RunFolder, first_weights
from imdn_kd.training.schema import TrainOptions


@dataclass(frozen=True)
class RunArtifacts:
    """What was trained.

    Attributes:
        state: the newest one.
        options: its options.
        model: the selected weights.
        entries: of `run.json`, for each time that it was begun or resumed.
        validations: how often the sets for selection were scored.
    """

    state: State
    options: TrainOptions
    model: ModelFile
    entries: Sequence[Mapping[str, Any]]
    validations: int

    @property
    def first_weights(self) -> str | None:
        """SHA-256 of the weights that it began with, if they are known."""
        return first_weights(self.entries)

    @property
    def updates(self) -> int:
        """How many were made: the selected weights may be later than the newest state."""
        selected: int = self.model.training["updates"]
        return max(self.state.step, selected)

    @property
    def selected_on(self) -> list[str]:
        """The sets on which its weights were selected, one or more."""
        assert self.options.val is not None  # noqa: S101 - open_run has looked
        return self.options.val.selection


def open_run(file: TrainOptions, folder: RunFolder) -> RunArtifacts:
    """Open a run of which weights were selected.

    Args:
        file: options that it is to agree with in the factor.
        folder: of the run.

    Raises:
        InputError: there is no such run, it has no selected weights, or its files are damaged.
    """
    train = "train it first: imdn-kd train -opt FILE"
    if not folder.path.is_dir():
        raise InputError(
            f"{folder.path}: there is no such run; {train}, or say where it is (--root)", code="run.not-found"
        )
    state = newest_state(folder.states)
    if state is None:
        raise InputError(f"{folder.states}: has no training states; {train}", code="state.not-found")
    options = check_options(without_none(state.options), TrainOptions, f"{folder.states}, update {state.step}")
    if options.scale != file.scale:
        raise InputError(
            f"{folder.path}: was trained for x{options.scale}, but scale is {file.scale}; correct it",
            code="model.scale-mismatch",
        )
    selected = folder.model_file("best_psnr")
    if not selected.is_file() or options.val is None or not options.val.selection:
        raise InputError(
            f"{selected}: no weights were selected in this run; give val.select_on, and resume it",
            code="run.no-selection",
        )
    try:
        entries = json.loads(folder.record.read_text(encoding="utf-8"))
        entries[-1]["data"]["train"]
        # The last line is one that a killed run has not finished, or empty.
        lines = map(json.loads, folder.metrics.read_text(encoding="utf-8").split("\n")[:-1])
        validations = sum(options.val.selection[0] in line.get("scores", ()) for line in lines)
    except OSError as error:
        raise InputError(
            f"{error.filename}: cannot read it ({error.strerror}); the run folder is not whole", code="run.damaged"
        ) from error
    except (ValueError, LookupError, AttributeError) as error:
        raise InputError(
            f"{folder.path}: run.json or metrics.jsonl is damaged; restore them", code="run.damaged"
        ) from error
    return RunArtifacts(state, options, load_model(selected), entries, validations)


def tidy_options(run: RunArtifacts, file: TrainOptions) -> dict[str, Any]:
    """The options of a run as plain values, without absolute paths, which say nothing elsewhere: those of `file`."""
    tidy: dict[str, Any] = _relative(run.state.options, file.model_dump(mode="json"))
    return tidy


def without_none(options: Any) -> Any:  # noqa: ANN401 - plain values
    """Options without what is None, which stands for keys that were not given."""
    if isinstance(options, Mapping):
        return {key: without_none(value) for key, value in options.items() if value is not None}
    return [without_none(value) for value in options] if isinstance(options, list) else options


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
