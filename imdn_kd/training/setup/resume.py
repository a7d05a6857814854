"""The training state that a run resumes from, and whether it is of this run."""

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
from imdn_kd.training.schema import QuantizeOptions, ReparamOptions, TrainOptions

MISMATCH = "train.state-mismatch"


def open_state(options: TrainOptions, folder: RunFolder, *, auto_resume: bool) -> State | None:
    """Return the newest state of the run, or else the one that is named; None if it is to begin.

    Args:
        options: of the run.
        folder: of the run, which need not exist.
        auto_resume: whether the newest state is wanted.

    Raises:
        InputError: the state is damaged.
    """
    state = newest_state(folder.states) if auto_resume else None
    if state is None and options.path.resume_state is not None:
        return load_state(Path(options.path.resume_state))
    return state


def check_state(state: State, options: TrainOptions, folder: RunFolder) -> None:
    """Make sure that a state is of a run with these options.

    Raises:
        InputError: it is of another network, scale, optimiser or training form, or beyond the end of the run.
    """
    before, now = state.options, options.model_dump(mode="json")
    weights = "begin from the weights with path.pretrain_network_g under another name"
    for key in ("network_g", "scale"):
        if before[key] != now[key]:
            raise InputError(
                f"{folder.path}: was trained with {key} {before[key]}, now it is {now[key]}; "
                "use another name, or train without --auto_resume",
                code=MISMATCH,
            )
    optim = before["train"]["optim_g"]["type"]
    if optim != options.train.optim_g.type:
        raise InputError(
            f"{folder.path}: was trained with the optimiser {optim}, now it is {options.train.optim_g.type}; "
            f"keep it, or {weights}",
            code=MISMATCH,
        )
    for key, kind in (("reparam", ReparamOptions), ("quantize", QuantizeOptions)):
        # Older states lack options that came later.
        forms = [
            None if (form := each["train"].get(key)) is None else kind(**form).model_dump() for each in (before, now)
        ]
        if forms[0] != forms[1]:
            had, has = (f"no train.{key}" if form is None else f"train.{key} {form}" for form in forms)
            raise InputError(
                f"{folder.path}: was trained with {had}, now there is {has}; keep it, or {weights}", code=MISMATCH
            )
    if state.step > options.train.total_iter:
        raise InputError(
            f"{folder.path}: has {state.step} iterations, more than total_iter, {options.train.total_iter}; give more",
            code="train.state-beyond-end",
        )


def check_trainable_modules(state: State, options: TrainOptions, modules: Mapping[str, nn.Module]) -> Iterator[str]:
    """One line for each module trained beside the network that cannot resume from a state.

    Args:
        state: that is resumed from.
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
    before, now = dict(state.options), options.model_dump(mode="json")
    if options.train.is_open:  # a new segment, which changes these by itself
        before["train"] = {**before["train"], "total_iter": now["train"]["total_iter"]}
        before["train"]["scheduler"] = now["train"]["scheduler"]
    for line in _differences(before, now):
        yield f"not as before: {line}"


def _differences(before: Any, now: Any, place: str = "") -> Iterator[str]:  # noqa: ANN401 - plain values
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now}:
            if key not in before and not now[key]:
                continue  # an option that came later, and is off
            yield from _differences(before.get(key), now.get(key), f"{place}.{key}" if place else str(key))
    elif before != now and place != "path.resume_state":
        yield f"{place} is {now}, was {before}"
