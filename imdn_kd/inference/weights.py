"""Weights without their network: read from files, compared with a network, and put into one."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from imdn_kd.errors import InputError

WRAPPERS = ("params_ema", "params")
"""The keys of a BasicSR checkpoint that hold weights, averaged and plain, in the order of preference."""


class MisfitError(InputError):
    """Weights are not those of the network."""


class WeightFile(NamedTuple):
    """What a file of weights holds.

    Attributes:
        weights: the tensors by their names, without `module.`, on the CPU.
        metadata: that of a safetensors file, otherwise empty.
        wrapper: the key of the file that they were under, None if there was none.
    """

    weights: dict[str, Tensor]
    metadata: dict[str, str]
    wrapper: str | None


def read_weights(path: Path | str, key: str | None = None) -> dict[str, Tensor]:
    """Read the weights of a safetensors or .pth file; its kind is told by its content, not by its name.

    Args:
        path: the file. Only tensors and plain values are read of a .pth file, never code.
        key: which of the sets of weights of a BasicSR checkpoint; by default `params_ema`, if it is there, or `params`.

    Returns:
        The tensors by their names, without the `module.` of distributed training, on the CPU.

    Raises:
        InputError: no such file, one that does not hold weights, or no such key in it.
    """
    return read_weight_file(Path(path), key).weights


def read_weight_file(path: Path, key: str | None = None) -> WeightFile:
    """As `read_weights`, with what else the file says."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(
            f"{path}: cannot read it ({error.strerror}); give the path of a model file", code="model.cannot-read"
        ) from error
    if head[8:9] == b"{":
        weights, metadata = _read_safetensors(path)
        if key is not None:
            raise InputError(
                f"{path}: a safetensors file has one set of weights and no key {key!r}; leave the key out",
                code="model.no-such-key",
            )
        return WeightFile(_without_prefix(weights), metadata, None)
    content = _read_pth(path)
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__} where a dictionary of weights was expected",
            code="model.no-weights",
        )
    found = ", ".join(str(key) for key in list(content)[:4]) or "nothing"
    if key is not None and key not in content:
        raise InputError(
            f"{path}: has no key {key!r}, but: {found}; correct the key or leave it out", code="model.no-such-key"
        )
    wrapper = key or next((key for key in WRAPPERS if key in content), None)
    held = content[wrapper] if wrapper else content
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise InputError(f"{path}: holds no weights, but: {found}", code="model.no-weights")
    return WeightFile(_without_prefix(held), {}, wrapper)


def load_weights(network: nn.Module, path: Path | str, *, key: str | None = None, strict: bool = True) -> list[str]:
    """Put the weights of a file into `network`, in place.

    Args:
        network: keeps its device, type and mode.
        path: see `read_weights`.
        key: see `read_weights`.
        strict: take nothing unless all tensors fit. Otherwise those whose names and shapes fit are taken, and the
            others of the network keep their values: this is how an x4 network starts from one of x2.

    Returns:
        A line for each tensor that did not fit: missing in the file, of another shape, or unknown to the network.

    Raises:
        MisfitError: a tensor does not fit (`strict`).
        InputError: the file cannot be used, no tensor fits, or one has values that are not finite.
    """
    path = Path(path)
    weights = read_weights(path, key)
    own = network.state_dict()
    name = type(network).__name__
    problems = list(misfits(own, weights))
    if strict and problems:
        raise MisfitError(
            f"{path}: does not fit {name}: {problems[0]}; give weights of this network", code="model.misfit"
        )
    fitting = {key: weights[key] for key, value in own.items() if key in weights and weights[key].shape == value.shape}
    if not fitting:
        raise InputError(
            f"{path}: no tensor in it fits {name}; give weights of this network or one like it", code="model.misfit"
        )
    check_finite(path, fitting)
    network.load_state_dict(fitting, strict=False)
    return problems


def misfits(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[str]:
    """What keeps `weights` from being those of a network whose state is `own`: half a sentence for each tensor."""
    for key, value in own.items():
        if key not in weights:
            yield f"{key} is missing"
        elif weights[key].shape != value.shape:
            yield f"{key} is {tuple(weights[key].shape)}, not {tuple(value.shape)}"
    for key in weights:
        if key not in own:
            yield f"has a tensor that this does not have: {key}"


def check_finite(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise InputError where a tensor has infinite values or NaN."""
    for key, value in weights.items():
        if not value.isfinite().all():
            raise InputError(
                f"{path}: {key} has values that are not finite; the file is damaged or the training diverged",
                code="model.not-finite",
            )


def one_line(error: BaseException) -> str:
    """Type and message of `error`, shortened."""
    text = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: a damaged safetensors file ({one_line(error)}); fetch or save it again", code="model.damaged"
        ) from error


def _read_pth(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error type of its own: EOFError, RuntimeError, KeyError, ...
        if not isinstance(error, pickle.UnpicklingError):
            raise InputError(
                f"{path}: not a model file, or a damaged one ({one_line(error)})", code="model.not-a-model-file"
            ) from error
        if "GLOBAL" not in str(error):
            raise InputError(
                f"{path}: not a model file; give a .safetensors or .pth file", code="model.not-a-model-file"
            ) from error
        raise InputError(
            f"{path}: holds Python objects, which are not loaded since they could run code; save the state_dict alone",
            code="model.holds-code",
        ) from error
    return content


def _without_prefix(weights: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    return {str(key).removeprefix("module."): value for key, value in weights.items()}
