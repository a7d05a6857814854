"""Model files: weights that say which network they belong to.

Our own are safetensors whose metadata hold the architecture. `.pth` files of BasicSR (`params`, `params_ema`) and of
the official IMDN release are recognised by their keys and shapes.
"""

from __future__ import annotations

import json
import math
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from imdn_kd import zoo
from imdn_kd.archs.network import SRNetwork
from imdn_kd.archs.recognise import recognise
from imdn_kd.errors import InputError
from imdn_kd.files import atomic_path
from imdn_kd.registry import ARCHS

FORMAT = "imdn_kd.1"


@dataclass(frozen=True)
class ModelFile:
    """A network with what its file says of it.

    Attributes:
        network: the network with its weights, fp32, on the CPU, in eval mode.
        value_range: what stands for white in the input and output of the network: 1, or 255 for some third-party
            weights.
        training: summary of the training (steps, data, teacher, figures), empty if unknown.
        card: the model card in Markdown, empty if there is none.
    """

    network: SRNetwork
    value_range: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""


def save_model(path: Path | str, model: ModelFile, *, dtype: torch.dtype | None = None) -> None:
    """Write `model` as safetensors, atomically.

    Args:
        path: the file, usually `.safetensors`; replaced if it exists.
        model: what to write.
        dtype: store floating-point weights in this type; by default in their own.

    Raises:
        InputError: the file cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(model.network.spec),
        "scale": str(model.network.facts.scale),
        "value_range": str(model.value_range),
        "training": json.dumps(model.training),
        "card": model.card,
    }
    weights = {key: value.cpu().to(dtype or value.dtype) for key, value in model.network.state_dict().items()}
    weights = {key: value.contiguous() for key, value in weights.items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata=metadata)


def load_model(path: Path | str) -> ModelFile:
    """Read a model file; its kind is told by its content, not by its name.

    Raises:
        InputError: no such file, not a model, a damaged file, or weights of a network that is not ours.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: cannot read it ({error.strerror}); give the path of a model file") from error
    if head[8:9] == b"{":
        return _load_safetensors(path)
    return _load_pth(path)


def open_model(model: str | Path) -> ModelFile:
    """Open a student of the zoo by its name, or a model file.

    Raises:
        InputError: no such student or file, or one that cannot be loaded.
    """
    student = zoo.find(str(model))
    if student is None and not Path(model).exists():
        known = ", ".join(student.name for student in zoo.students()) or "none in this version"
        raise InputError(f"{model}: no such model file, nor a student of the zoo (there: {known})")
    return load_model(model if student is None else student.path)


def expect_network(model: str | Path, spec: Mapping[str, Any]) -> None:
    """Make sure that a model is of a network.

    Args:
        model: see `open_model`.
        spec: `{"type": ..., **keywords}` as for the registry; what it leaves out has its default.

    Raises:
        InputError: it is of another network, or one of the two cannot be built.
    """
    # Without memory for the weights, which are not looked at.
    with torch.device("meta"):
        wanted = ARCHS.build(spec).spec
    found = open_model(model).network.spec
    for key in sorted(wanted.keys() | found.keys(), key=lambda key: (key != "type", key)):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{model}: holds a network of {key} {found.get(key)}, but network_g is one of {key} {wanted.get(key)}; "
                "correct network_g or leave it out"
            )


def _load_safetensors(path: Path) -> ModelFile:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: a damaged safetensors file ({_one_line(error)}); fetch or save it again") from error
    if "architecture" not in metadata:
        return _from_state_dict(path, weights)
    try:
        spec = json.loads(metadata["architecture"])
        network = ARCHS.build(spec)
        training = json.loads(metadata.get("training", "{}"))
        value_range = float(metadata.get("value_range", 1))
        if not 0 < value_range < math.inf:
            raise ValueError(f"value_range {value_range}")
    except (ValueError, TypeError, InputError) as error:
        raise InputError(f"{path}: its metadata cannot be used ({_one_line(error)}); save the model again") from error
    _fill(path, network, weights)
    return ModelFile(network, value_range, training, metadata.get("card", ""))


def _load_pth(path: Path) -> ModelFile:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load has no error type of its own: EOFError, RuntimeError, KeyError, ...
        if not isinstance(error, pickle.UnpicklingError):
            raise InputError(f"{path}: not a model file, or a damaged one ({_one_line(error)})") from error
        if "GLOBAL" not in str(error):
            raise InputError(f"{path}: not a model file; give a .safetensors or .pth file") from error
        raise InputError(
            f"{path}: holds Python objects, which are not loaded since they could run code; save the state_dict alone"
        ) from error
    return _from_state_dict(path, content)


def _from_state_dict(path: Path, content: object) -> ModelFile:
    """Recognise plain weights, or those of a BasicSR checkpoint (the averaged ones if there are any)."""
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__} where a dictionary of weights was expected")
    wrapper = next((key for key in ("params_ema", "params") if key in content), None)
    weights = content[wrapper] if wrapper else content
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        found = ", ".join(str(key) for key in list(content)[:4])
        raise InputError(f"{path}: holds no weights, but: {found or 'nothing'}")
    weights = {str(key).removeprefix("module."): value for key, value in weights.items()}
    spec = recognise(weights)
    if spec is None:
        found = ", ".join(list(weights)[:3])
        raise InputError(f"{path}: not a network of the IMDN family; found {len(weights)} tensors, the first: {found}")
    try:
        network: SRNetwork = ARCHS.build(spec)
    except InputError as error:
        raise InputError(f"{path}: looks like {spec['type']}, but {error}") from error
    _fill(path, network, weights)
    # The released IMDN_RTE was trained on values in 0..255 (its head biases are about 7), unlike the rest of the
    # family.
    raw_rte = spec["type"] == "IMDN_RTE" and wrapper is None
    return ModelFile(network, value_range=255.0 if raw_rte else 1.0)


def _fill(path: Path, network: SRNetwork, weights: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    name = network.spec["type"]
    for key, value in own.items():
        if key not in weights:
            raise InputError(f"{path}: looks like {name}, but {key} is missing")
        if weights[key].shape != value.shape:
            found, wanted = tuple(weights[key].shape), tuple(value.shape)
            raise InputError(f"{path}: looks like {name}, but {key} is {found}, not {wanted}")
        if not weights[key].isfinite().all():
            raise InputError(
                f"{path}: {key} has values that are not finite; the file is damaged or the training diverged"
            )
    extra = next((key for key in weights if key not in own), None)
    if extra is not None:
        raise InputError(f"{path}: looks like {name}, but has a tensor that this does not have: {extra}")
    network.load_state_dict(dict(weights))
    network.eval()


def _one_line(error: BaseException) -> str:
    text = next(iter(str(error).splitlines()), "")
    text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 100 else f"{text[:97]}..."
