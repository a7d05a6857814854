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
from imdn_kd.inference.checkpoint_forms import SeveralError, find_weights, named_as, select_weights
from imdn_kd.utils.text import one_line
from imdn_kd.utils.zips import inflates

_FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


class MisfitError(InputError):
    """Weights are not those of the network."""


class WeightFile(NamedTuple):
    """What a file of weights holds.

    Attributes:
        weights: the tensors by their names in the file, on the CPU.
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
        key: which of the sets of weights of a checkpoint, or which module of a trainer's (`generator`); by default
            `params_ema`, if it is there, or `params`, `state_dict` and the like.

    Returns:
        The tensors by their names in the file, on the CPU.

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
    if graph_format(path) is not None:
        raise InputError(
            f"{path}: is an exported graph, which upscale and benchmark can run, not a model file; give the model that "
            "it was made from",
            code="model.is-graph",
        )
    content: Mapping[Any, Any]
    metadata: dict[str, str] = {}
    if head[8:9] == b"{":
        content, metadata = _read_safetensors(path)
    else:
        content = _read_pth(path)
    wrapper = key
    try:
        if key is None:
            weights, wrapper = find_weights(content)
        else:
            weights = select_weights(content, key)
    except SeveralError as error:
        raise InputError(
            f"{path}: holds several sets of weights, {one_line(', '.join(error.args[:4]))}; give one of these keys "
            "(param_key_g, param_key)",
            code="model.several-weights",
        ) from error
    found = one_line(", ".join(str(key) for key in list(content)[:4])) or "nothing"
    if key is not None and not weights and key not in content:
        raise InputError(
            f"{path}: has no key {key!r}, but: {found}; correct the key or leave it out", code="model.no-such-key"
        )
    if not weights:
        raise InputError(f"{path}: holds no weights, but: {found}", code="model.no-weights")
    for name, value in weights.items():
        if value.layout != torch.strided or value.is_nested or value.is_meta or value.is_quantized:
            raise InputError(
                f"{path}: {one_line(name)} is a sparse, nested or quantised tensor, or one without values; save the "
                "weights as dense tensors of floating-point numbers",
                code="model.bad-tensor",
            )
    return WeightFile(weights, metadata, wrapper)


def graph_format(path: Path) -> str | None:
    """`onnx` or `openvino` for a graph in one of these formats, by its content; None for other files."""
    try:
        with path.open("rb") as file:
            head = file.read(2048)
    except OSError:
        return None
    if head[:2] in (b"PK", b"\x80\x02") or head[8:9] == b"{":  # those of PyTorch and safetensors
        return None
    if b"<net " in head and head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
        return "openvino"
    # The first field of the message is the version of the format, and its names of fields come soon.
    return "onnx" if head[:1] == b"\x08" and 0 < head[1] < 128 and head[2:3] in (b"\x12", b"\x1a", b"\x3a") else None


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
        InputError: the file cannot be used, no tensor fits, or one has values that the network cannot take.
    """
    path = Path(path)
    own = network.state_dict()
    weights = named_as(own, read_weights(path, key))
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
    check_values(path, own, fitting)
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


def check_values(path: Path, own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Raise InputError where the values of a tensor are not numbers that the network, whose state is `own`, can take.

    Quantised and complex numbers would be taken for others, NaN and infinite ones spoil every result.
    """
    for key, value in weights.items():
        of_floats = own[key].is_floating_point()
        if (value.dtype not in _FLOATS) if of_floats else (value.is_floating_point() or value.is_complex()):
            wanted = "floating-point numbers of 16 bits or more" if of_floats else "whole numbers"
            raise InputError(
                f"{path}: {key} holds {str(value.dtype).removeprefix('torch.')} where {wanted} are needed; give the "
                "weights before they were quantised or converted",
                code="model.bad-dtype",
            )
        if of_floats and not value.to(own[key].dtype).isfinite().all():
            raise InputError(
                f"{path}: {key} has values that are not finite; the file is damaged or the training diverged",
                code="model.not-finite",
            )


def shortened(error: BaseException) -> str:
    """Type and message of `error`, in at most 100 characters."""
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
            f"{path}: a damaged safetensors file ({shortened(error)}); fetch or save it again", code="model.damaged"
        ) from error


def _read_pth(path: Path) -> Mapping[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with path.open("rb") as file:  # by its path, torch.load would go by the name
                if reason := inflates(file):
                    raise InputError(f"{path}: {reason}; save it again with torch.save", code="model.inflates")
                content: object = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch.load has no error type of its own: EOFError, RuntimeError, KeyError, ...
        if not isinstance(error, pickle.UnpicklingError) or "GLOBAL" not in str(error):
            # What it says is about its own work, as "pop from empty list".
            raise InputError(
                f"{path}: not a model file, or a damaged one; give a .safetensors or .pth file, or get a fresh copy",
                code="model.not-a-model-file",
            ) from error
        raise InputError(
            f"{path}: holds Python objects, which are not loaded since they could run code; save the state_dict alone",
            code="model.holds-code",
        ) from error
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path}: holds a {type(content).__name__} where a dictionary of weights was expected",
            code="model.no-weights",
        )
    return content
