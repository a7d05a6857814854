"""Which state a run goes on from, and whether it is of this run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from imdn_kd.distill.distiller import ADAPTERS, CRITIC
from imdn_kd.errors import InputError
from imdn_kd.inference.weights import misfits
from imdn_kd.training.checkpoint import State, load_state, newest_state
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions


def state_to_go_on_from(options: TrainOptions, folder: RunFolder, *, auto_resume: bool) -> State | None:
    """Return the newest state of the run, or else the one that is named; None if it is to begin.

    Args:
        options: of the run.
        folder: of the run, which need not exist.
        auto_resume: whether the newest state is wanted.

    Raises:
        InputError: the state is damaged, of another network, or beyond the end of the run.
    """
    state = newest_state(folder.states) if auto_resume else None
    if state is None and options.path.resume_state is not None:
        state = load_state(Path(options.path.resume_state))
    if state is None:
        return None
    now = options.model_dump(mode="json")
    for key in ("network_g", "scale"):
        if state.options[key] != now[key]:
            raise InputError(
                f"{folder.path}: was trained with {key} {state.options[key]}, now it is {now[key]}; "
                "use another name, or train without --auto_resume"
            )
    before = state.options["train"]["optim_g"]["type"]
    if before != options.train.optim_g.type:
        raise InputError(
            f"{folder.path}: was trained with the optimiser {before}, now it is {options.train.optim_g.type}; "
            "keep it, or begin from the weights with path.pretrain_network_g under another name"
        )
    if state.options["train"].get("reparam") != now["train"]["reparam"]:
        widths = [
            "no train.reparam" if reparam is None else f"train.reparam.width {reparam['width']}"
            for reparam in (state.options["train"].get("reparam"), now["train"]["reparam"])
        ]
        raise InputError(
            f"{folder.path}: was trained with {widths[0]}, now there is {widths[1]}; keep it, or begin from the "
            "weights with path.pretrain_network_g under another name"
        )
    if state.step > options.train.total_iter:
        raise InputError(
            f"{folder.path}: has {state.step} updates, more than total_iter, {options.train.total_iter}; give more"
        )
    return state


def check_trainable_modules(state: State, options: TrainOptions, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """One line for each module trained beside the network that cannot resume from a state.

    Args:
        state: that is gone on from.
        options: of the run.
        modules: what is trained now beside the network, by name.
    """
    advice = "use another name, or train without --auto_resume"
    for name in sorted(state.others.keys() ^ modules.keys()):
        had = name in state.others
        yield f"distill.objectives: the run {'had' if had else 'had no'} {name}, now there {_is(name, had)}; {advice}"
    for name in sorted(state.others.keys() & modules.keys()):
        if next(misfits(modules[name].state_dict(), state.others[name]["weights"]), None) is not None:
            yield f"distill.objectives: the {name} of the run had other weights than now; {advice}"
        key = {ADAPTERS: "optim_a", CRITIC: "optim_d"}[name]
        now = getattr(options.train, key) or options.train.optim_g
        before = state.options["train"].get(key) or state.options["train"]["optim_g"]
        if before["type"] != now.type:
            yield f"train.{key}: the run had {before['type']}, now it is {now.type}; keep it, or {advice}"


def _is(name: str, had: bool) -> str:
    verb = "are" if name == ADAPTERS else "is"
    return f"{verb} none" if had else verb


def changes(state: State, options: TrainOptions) -> Iterator[str]:
    """One line for each option that is not as it was when the state was saved."""
    for line in _differences(state.options, options.model_dump(mode="json")):
        yield f"not as before: {line}"


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401 - plain values
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif before != now and place != "path.resume_state":
        yield f"{place} is {now}, was {before}"
