"""Checkpoints, in files that are whole or absent: training states, from which a run resumes, and bare weights."""

from __future__ import annotations

import io
import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imdn_kd.errors import InputError
from imdn_kd.utils.files import atomic_path
from imdn_kd.utils.zips import inflates

FORMAT = "imdn_kd.state.1"
SUFFIX = ".state"

Weights = dict[str, Tensor]

logger = logging.getLogger(__name__)


@dataclass
class State:
    """A training state: all that is needed to resume a run from an iteration.

    Learning rates, patches and other random numbers are functions of the iteration, so they are not part of it.

    Attributes:
        step: iterations done.
        options: the options of the run, resolved, as plain values.
        network: weights of the network.
        optimizer: state of the optimiser.
        ema: EMA of the weights, if there is one.
        scaler: state of the loss scaling of fp16, if it is used.
        others: `weights` and `optimizer` of the other trainable modules, by name.
        best: for each metric, the best value and the step at which it was reached.
        validated: the last step at which validation was finished.
        skipped: how many iterations in a row were skipped, since their gradients were not finite.
        window: sums of the losses since the last line of the log, by name, and their number.
        teacher: the fields of a `TeacherScore`; empty if there is none.
    """

    step: int
    options: dict[str, Any]
    network: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    others: dict[str, dict[str, Any]] = field(default_factory=dict)
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    validated: int = 0
    skipped: int = 0
    window: dict[str, Any] = field(default_factory=dict)
    teacher: dict[str, Any] = field(default_factory=dict)


def state_path(folder: Path, step: int) -> Path:
    """Where the state after an iteration belongs."""
    return folder / f"{step}{SUFFIX}"


def save_state(folder: Path, state: State, *, keep_last: int) -> Path:
    """Write a state, then remove old ones.

    Args:
        folder: of all states of the run.
        state: what to write.
        keep_last: how many states are kept, 0 for all.

    Raises:
        InputError: it cannot be written.
    """
    path = state_path(folder, state.step)
    with atomic_path(path) as temporary:
        temporary.write_bytes(_serialised({"format": FORMAT, **vars(state)}))
        # Through a power cut, too: the name must not be there before the content is.
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
    if keep_last:
        for _, old in _states(folder)[:-keep_last]:
            old.unlink(missing_ok=True)
    return path


def save_weights(folder: Path, step: int, params: Weights, params_ema: Weights | None) -> None:
    """Write `net_g_STEP.pth`, from which BasicSR can read the weights as well.

    Args:
        folder: of all models of the run.
        step: iterations done.
        params: of the network.
        params_ema: their EMA, if there is one.

    Raises:
        InputError: it cannot be written.
    """
    sides = {"params": params} | ({} if params_ema is None else {"params_ema": params_ema})
    content = {
        side: {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        for side, weights in sides.items()
    }
    with atomic_path(folder / f"net_g_{step}.pth") as temporary:
        temporary.write_bytes(_serialised(content))


def abandon_newer_states(folder: Path, step: int) -> None:
    """Rename the states after an iteration, which a run does not resume from: they are no longer the newest ones."""
    for number, path in _states(folder):
        if number > step:
            path.replace(path.with_name(f"{path.name}.abandoned"))


def load_state(path: Path) -> State:
    """Read a state; no code in it is run.

    Raises:
        InputError: there is none, it is damaged, or not of this program.
    """
    try:
        with path.open("rb") as file:
            damaged = inflates(file)
        if not damaged:
            with zipfile.ZipFile(path) as archive:
                # PyTorch itself does not look at the checksums.
                damaged = archive.testzip()
        content = None if damaged else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such training state", code="state.not-found") from error
    except Exception as error:  # of whatever kind: zipfile and torch.load each have many
        raise InputError(f"{path}: is damaged; resume from another state", code="state.damaged") from error
    if content is None:
        raise InputError(f"{path}: is damaged ({damaged}); resume from another state", code="state.damaged")
    if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
        raise InputError(
            f"{path}: is not a training state of imdn_kd; give one from training_states/ of a run of it",
            code="state.foreign",
        )
    return State(**content)


def newest_state(folder: Path) -> State | None:
    """The newest state in a folder that can be read, None if there are none; the log says which ones cannot.

    Raises:
        InputError: there are states, but none of them can be read.
    """
    paths = [path for _, path in reversed(_states(folder))]
    for path in paths:
        try:
            return load_state(path)
        except InputError as error:
            logger.warning("%s", error)
    if paths:
        raise InputError(
            f"{folder}: none of its states can be read; train without --auto_resume to begin anew", code="state.damaged"
        )
    return None


def _serialised(content: dict[str, Any]) -> bytes:
    # In memory first: where torch.save cannot write, it does not say why.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _states(folder: Path) -> list[tuple[int, Path]]:
    """States by step, the newest last."""
    paths = folder.glob(f"*{SUFFIX}") if folder.is_dir() else ()
    return sorted((int(path.stem), path) for path in paths if path.stem.isdecimal())
