"""Model files: weights that say which network they belong to.

Our own are safetensors whose metadata hold the architecture. Checkpoints of the official IMDN release, of BasicSR and
other trainers, and of the kinds that spandrel knows are told by their keys and shapes.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from imdn_kd import zoo
from imdn_kd.archs.adopted import AdoptedNetwork
from imdn_kd.archs.base import SRNetwork
from imdn_kd.archs.detect import detect
from imdn_kd.archs.quantize import quantize, ranges_of, without_ranges
from imdn_kd.errors import InputError
from imdn_kd.inference.checkpoint_forms import BASICSR, named_as, namings
from imdn_kd.inference.model_names import name_of
from imdn_kd.inference.weights import WeightFile, check_values, load_weights, misfits, read_weight_file, shortened
from imdn_kd.registry import ARCHS
from imdn_kd.utils.files import atomic_path

FORMAT = "imdn_kd.1"


FILES_OUTSIDE = "imdn_kd.integrations.spandrel"
"""Loads what is not of this toolkit; imported by name when such a file comes."""


@dataclass(frozen=True)
class ModelFile:
    """A network with what its file says of it.

    Attributes:
        network: the network with its weights, fp32, on the CPU, in eval mode; with the convolutions in 8 bits that the
            file has ranges for, see `imdn_kd.archs.quantize`.
        value_range: what stands for white in the input and output of the network: 1, or 255 for some third-party
            weights.
        training: summary of the training (steps, data, teacher, figures), empty if unknown.
        card: the model card in Markdown, empty if there is none.
        name: that of the student, of its run or of its file; empty for a network that has none.
    """

    network: SRNetwork
    value_range: float = 1.0
    training: dict[str, Any] = field(default_factory=dict)
    card: str = ""
    name: str = ""


def save_model(path: Path | str, model: ModelFile, *, dtype: torch.dtype | None = None) -> None:
    """Write `model` as safetensors, atomically.

    Args:
        path: the file, usually `.safetensors`; replaced if it exists.
        model: what to write.
        dtype: store floating-point weights in this type; by default in their own.

    Raises:
        InputError: the file cannot be written.
    """
    if isinstance(model.network, AdoptedNetwork):
        try:
            ARCHS.get(model.network.spec["type"])
        except InputError as error:
            raise InputError(
                f"{path}: {model.network.spec['type']} is not a registered network, so no model file could be loaded "
                "again; register it with `imports:`, or save its state_dict with torch.save",
                code="model.not-registered",
            ) from error
    metadata = {
        "format": FORMAT,
        "architecture": json.dumps(model.network.spec),
        "scale": str(model.network.info.scale),
        "value_range": str(model.value_range),
        "training": json.dumps(model.training),
        "card": model.card,
    }
    source = ARCHS.source(model.network.spec["type"])
    if source is not None:
        metadata["import"] = Path(source).name
    state, weights = model.network.state_dict(), {}
    if ranges := ranges_of(state):
        metadata["input_ranges"] = json.dumps(ranges)
    for key, value in without_ranges(state).items():
        stored = dtype if dtype is not None and value.is_floating_point() else value.dtype
        weights[key] = value.to("cpu", stored).contiguous()
    with atomic_path(path) as temporary:
        # Not save_file, which leaves temporary files of its own when the process is killed.
        temporary.write_bytes(_with_sorted_header(save(weights, metadata)))


def load_model(model: Path | str, spec: Mapping[str, Any] | None = None, *, key: str | None = None) -> ModelFile:
    """Load a model file, any checkpoint that spandrel knows, or a student of the zoo by its name.

    Args:
        model: path of the file, whose kind is told by its content, not by its name; or the name. Only tensors and plain
            values are read, never code.
        spec: `{"type": ..., **keywords}` as for the registry, for weights that do not say of what network they are, as
            BasicSR's. Weights that do are refused if they are of another network.
        key: which of the sets of weights of a checkpoint; see `read_weights`.

    Raises:
        InputError: no such file or student, not a model, a damaged file, or weights of an unknown or another network.
    """
    return replace(_load(zoo.locate(model), spec, key), name=name_of(model))


def _load(path: Path, spec: Mapping[str, Any] | None, key: str | None) -> ModelFile:
    wanted: SRNetwork | None = None if spec is None else ARCHS.build(spec)
    file = read_weight_file(path, key)
    if "architecture" in file.metadata:
        found = _described(path, file)
    elif (detected := next(filter(None, map(detect, namings(file.weights))), None)) is not None:
        found = _detected(path, file, detected)
    elif wanted is not None:
        load_weights(wanted, path, key=key)
        return ModelFile(wanted.eval())
    else:
        return ModelFile(importlib.import_module(FILES_OUTSIDE).load_spandrel(path, key))
    if wanted is not None:
        _check_spec(path, found.network.spec, wanted.spec)
    return found


def _check_spec(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for key in sorted(wanted.keys() | found.keys(), key=lambda key: (key != "type", key)):
        if wanted.get(key) != found.get(key):
            raise InputError(
                f"{path}: holds a network of {key} {found.get(key)}, but {key} {wanted.get(key)} was asked for; "
                "correct the network or leave it out",
                code="model.other-network",
            )


def _with_sorted_header(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order, which differs from process to process otherwise."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8 bytes
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _described(path: Path, file: WeightFile) -> ModelFile:
    """By the architecture in the metadata."""
    try:
        spec = json.loads(file.metadata["architecture"])
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata cannot be used ({shortened(error)}); save the model again", code="model.bad-metadata"
        ) from error
    _check_import(path, file.metadata.get("import"), spec)
    try:
        network = ARCHS.build(spec)
        training = json.loads(file.metadata.get("training", "{}"))
        value_range = float(file.metadata.get("value_range", 1))
        if not 0 < value_range < math.inf:
            raise ValueError(f"value_range {value_range}")
    except InputError as error:
        raise InputError(f"{path}: its metadata cannot be used: {error}", code=error.code) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: its metadata cannot be used ({shortened(error)}); save the model again", code="model.bad-metadata"
        ) from error
    _fill(path, network, file.weights)
    _quantize(path, network, file.metadata.get("input_ranges", "{}"))
    return ModelFile(network, value_range, training, file.metadata.get("card", ""))


def _quantize(path: Path, network: SRNetwork, text: str) -> None:
    """Let those convolutions run in 8 bits that the file has ranges for."""
    try:
        ranges = {str(layer): (float(low), float(high)) for layer, (low, high) in json.loads(text).items()}
        if not all(-math.inf < low <= 0 <= high < math.inf for low, high in ranges.values()):
            raise ValueError("a range is not one")
        quantize(network, ranges)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path}: its ranges for 8 bits cannot be used ({shortened(error)}); save the model again",
            code="model.bad-metadata",
        ) from error


def _check_import(path: Path, source: str | None, spec: Any) -> None:  # noqa: ANN401 - whatever JSON holds
    """Refuse a network that the user's own code has to register first. A model file never says what code to run."""
    kind = str(spec.get("type")) if isinstance(spec, dict) else ""
    if source is not None and ARCHS.source(kind) is None:
        named = " ".join(source.split())
        message = f"{path}: its network {kind} is registered by the user's own code; give --import {named}"
        raise InputError(message, code="model.needs-import")


def _detected(path: Path, file: WeightFile, spec: Mapping[str, Any]) -> ModelFile:
    """By the names and shapes of the weights."""
    try:
        network: SRNetwork = ARCHS.build(spec)
    except InputError as error:
        raise InputError(f"{path}: looks like {spec['type']}, but {error}", code="model.misfit") from error
    _fill(path, network, file.weights)
    # The released IMDN_RTE was trained on values in 0..255 (its head biases are about 7), unlike the others.
    raw_rte = spec["type"] == "IMDN_RTE" and file.wrapper not in BASICSR
    return ModelFile(network, value_range=255.0 if raw_rte else 1.0)


def _fill(path: Path, network: SRNetwork, weights: dict[str, Tensor]) -> None:
    own = network.state_dict()
    weights = named_as(own, weights)
    problem = next(misfits(own, weights), None)
    if problem is not None:
        raise InputError(f"{path}: looks like {network.spec['type']}, but {problem}", code="model.misfit")
    check_values(path, own, weights)
    network.load_state_dict(weights)
    network.eval()
