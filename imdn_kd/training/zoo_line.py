"""Which student of the zoo is trained next, and what its training begins from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imdn_kd import zoo
from imdn_kd.config.options import read_options
from imdn_kd.errors import InputError
from imdn_kd.registry import ARCHS
from imdn_kd.training.checkpoint import State, newest_state
from imdn_kd.training.history import EarlierRun, earlier_runs, updates_of
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import PathOptions, TrainOptions
from imdn_kd.training.timed import is_complete
from imdn_kd.utils.text import read_text

LINE = "line.txt"
"""Beside the recipes: the names of the students that are trained in turn, one a line."""


@dataclass(frozen=True)
class Next:
    """The student that is trained next.

    Attributes:
        name: of the student, its recipe and its run.
        why: it is this one, and what is done with it; a line for the log.
        recipe: its option file.
        options: what this says, for publishing.
        training: the options to train with.
        outdated: the run that is there is to be renamed first, since the student in the zoo has had more iterations.
        trained: the run is complete, and only has to be published.
    """

    name: str
    why: str
    recipe: Path
    options: TrainOptions
    training: TrainOptions
    outdated: bool = False
    trained: bool = False


def next_student(name: str | None, *, recipes: Path, root: Path, folder: Path, overrides: Sequence[str] = ()) -> Next:
    """Choose a student, and find out what its training begins from; nothing is changed.

    A run that is there is resumed. Otherwise, and where the student in the zoo has had more iterations than the run
    accounts for, a run begins from the weights in the zoo if they are of the same network; or else as the recipe says.

    Args:
        name: of the student; None: of the line, the first one whose run is not complete or not published, or else the
            first of those that have had the fewest iterations.
        recipes: folder of the recipes, `NAME.yml`, and of the line, `line.txt`.
        root: folder of all runs.
        folder: of the zoo.
        overrides: replace options of the recipe; see `read_options`.

    Raises:
        InputError: no such student or line, a recipe that cannot be used, or a file that is damaged.
    """
    reason = "was named"
    if name is None:
        name, reason = _first(_line(recipes), recipes, root, folder)
    recipe = recipes / f"{name}.yml"
    if not recipe.is_file():
        raise InputError(
            f"{name}: there is no such recipe ({recipe}); name one of {_names(recipes)}", code="zoo.no-recipe"
        )
    options = read_options(recipe, TrainOptions, overrides)
    if options.name != name:
        raise InputError(
            f"{recipe}: its run is called {options.name}, but the student {name}; give both one name",
            code="zoo.recipe-name",
        )
    run, path = RunFolder(root / name), _file(folder, name)
    state, student = newest_state(run.states), _shipped(folder, name)
    found = Next(name, "", recipe, options, options)
    _check_selection(path, student, options)
    if _is_trained(state, run):
        return dataclasses.replace(found, why=f"{name}: {reason}; its run is complete, and is published", trained=True)
    own = any(word.startswith("path.") for word in overrides)
    history = earlier_runs(run.first_weights(), path, student)
    outdated = not own and _is_outdated(options, student, state, history)
    if state is not None and not outdated:
        training = begin_from(options, path, history) if history and not own else options
        why = f"{name}: {reason}; its run is resumed at iteration {state.step:,}"
        return dataclasses.replace(found, why=why, training=training)
    why = f"{name}: {reason}; a run begins as the recipe says"
    if not own and student is not None and _spec(student["network"]) == _spec(options.network_g.spec()):
        begun = [*student.get("history", ()), student]
        options = begin_from(options, path, begun)
        why = f"{name}: {reason}; a run begins from its weights in the zoo, after {student['updates']:,} iterations"
    return dataclasses.replace(found, why=why, training=options, outdated=outdated)


def _check_selection(path: Path, student: Mapping[str, Any] | None, options: TrainOptions) -> None:
    """Refuse before training what could not be published after it."""
    if student is None:
        return
    before = [each["set"] for each in (student["selection"], *student["selection"].get("also", ()))]
    now = [] if options.val is None else options.val.selection
    if set(before) != set(now):
        raise InputError(
            f"{path}: was selected on {' and '.join(before)}, the recipe selects on {' and '.join(now) or 'nothing'}, "
            "so that they cannot be compared; correct val.select_on, or move that file away",
            code="zoo.not-comparable",
        )


def begin_from(options: TrainOptions, path: Path, history: Sequence[EarlierRun]) -> TrainOptions:
    """Options of a run that begins from the weights of a student.

    Its learning rate is scaled by the last of the recipe's `restart_weights` throughout. The seed is another one than
    in each of the earlier runs, so that the patches are.

    Args:
        options: of the recipe.
        path: of the student.
        history: its earlier runs, one or more.
    """
    scheduler = options.train.scheduler
    if scheduler is not None and scheduler.restart_weights:
        weights = [scheduler.restart_weights[-1] for _ in scheduler.restart_weights]
        scheduler = scheduler.model_copy(update={"restart_weights": weights})
    return options.model_copy(
        update={
            "train": options.train.model_copy(update={"scheduler": scheduler}),
            "path": PathOptions(pretrain_network_g=str(path.resolve())),
            "manual_seed": options.manual_seed + len(history),
        }
    )


def _line(recipes: Path) -> list[str]:
    """The names in the line, each of a recipe."""
    path = recipes / LINE
    try:
        lines = read_text(path).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot read it ({reason}); name a student, or say where the recipes are", code="zoo.line"
        ) from error
    names: list[str] = []
    for number, line in enumerate(lines, 1):
        name = line.partition("#")[0].strip()
        if name in names:
            raise InputError(f"{path}, line {number}: {name} is there twice; keep one", code="zoo.line")
        if name and not (recipes / f"{name}.yml").is_file():
            raise InputError(
                f"{path}, line {number}: there is no recipe {name}.yml; name one of {_names(recipes)}", code="zoo.line"
            )
        names += [name] if name else []
    if not names:
        raise InputError(f"{path}: names no student; give names of recipes, one a line", code="zoo.line")
    return names


def _names(recipes: Path) -> str:
    return ", ".join(sorted(path.stem for path in recipes.glob("*.yml"))) or "none"


def _first(names: Sequence[str], recipes: Path, root: Path, folder: Path) -> tuple[str, str]:
    """The student of a line that is trained next, and why."""
    updates: dict[str, int] = {}
    for name in names:
        run = RunFolder(root / name)
        state = newest_state(run.states)
        if _is_trained(state, run):
            return name, "is not published yet"
        student = _shipped(folder, name)
        history = earlier_runs(run.first_weights(), _file(folder, name), student)
        # Those of a run count although its weights were not better, or the line would never go on.
        mine = 0 if state is None else updates_of(history) + state.step
        updates[name] = max(mine, 0 if student is None else student["updates"])
        if state is not None and not is_complete(state):
            options = read_options(recipes / f"{name}.yml", TrainOptions)
            # A run that is not resumed must not count, or another student may be next when its folder was renamed.
            if not _is_outdated(options, student, state, history):
                return name, "is not finished"
    name = min(names, key=updates.__getitem__)
    return name, f"has had the fewest iterations, {updates[name]:,}"


def _is_trained(state: State | None, run: RunFolder) -> bool:
    """Whether a run is complete, but was not published."""
    return state is not None and is_complete(state) and run.published_at() != state.step


def _is_outdated(
    options: TrainOptions, student: Mapping[str, Any] | None, state: State | None, history: Sequence[EarlierRun]
) -> bool:
    """Whether the student in the zoo has had more iterations than the run, its earlier ones included."""
    if state is None or student is None or _spec(student["network"]) != _spec(options.network_g.spec()):
        return False
    return bool(student["updates"] > updates_of(history) + state.step)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"


def _shipped(folder: Path, name: str) -> dict[str, Any] | None:
    """The record of a student in the zoo, None if it is not there."""
    path = _file(folder, name)
    return zoo.record(path) if path.is_file() else None


def _spec(network: Mapping[str, Any]) -> Any:  # noqa: ANN401 - plain values
    """All options of a network: a record lacks those that came after it."""
    return json.loads(json.dumps(ARCHS.build(network).spec))
