"""Networks that spandrel (https://github.com/chaiNNer-org/spandrel) recognises by their weights, as networks of ours.

The only place where `spandrel` is imported, and not before a file is to be loaded.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import json
import math
import pkgutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.archs.adopted import adopt
from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.probing import info_of, measure_info
from imdn_kd.errors import InputError
from imdn_kd.inference.checkpoint_forms import namings
from imdn_kd.inference.weights import check_values, read_weights
from imdn_kd.utils.extras import how_to_install
from imdn_kd.utils.text import one_line

PREFIX = "spandrel/"
"""Begins the `type` of a network of spandrel."""


def load_spandrel(path: Path | str, key: str | None = None) -> SRNetwork:
    """Read a network that upscales or restores images from a checkpoint of a kind that spandrel knows.

    Args:
        path: a safetensors or .pth file; only tensors and plain values are read, never code.
        key: which of the sets of weights in it; see `read_weights`.

    Returns:
        The network, fp32, on the CPU, in eval mode: of spandrel's class, with its modules and their names, that states
        its info besides. `spec` has `spandrel/CLASS` and its options, from which the registry builds it again.

    Raises:
        InputError: no such file, spandrel is not installed or does not know what is in the file, or it is no network
            that makes one image of one image, larger or of the same size, with as many channels.
    """
    path = Path(path)
    try:
        spandrel = _import_spandrel()
    except InputError as error:
        raise InputError(f"{path}: not a network of imdn_kd; {error}", code=error.code) from error
    weights = read_weights(path, key)
    check_values(path, weights, weights)
    descriptor = _recognised(path, spandrel, weights)
    name = descriptor.architecture.name
    if descriptor.purpose not in ("SR", "Restoration"):
        raise InputError(
            f"{path}: a network of the kind {name} for {descriptor.purpose.lower()}, not one that upscales or restores",
            code="model.not-super-resolution",
        )
    if descriptor.input_channels != descriptor.output_channels:
        raise InputError(
            f"{path}: a network of the kind {name} that makes {descriptor.output_channels} channels of "
            f"{descriptor.input_channels}; give one that keeps their number",
            code="model.not-super-resolution",
        )
    info = _info(path, descriptor)
    if not _is_called_plainly(descriptor, info):
        raise InputError(
            f"{path}: a network of the kind {name}, which is given more than an image (say, the strength of noise), or "
            "does more than make an image of it; give another",
            code="model.not-super-resolution",
        )
    return _adopt(descriptor.model.eval(), info)


def find(name: str) -> Callable[..., SRNetwork] | None:
    """Return what builds the network called `spandrel/CLASS` from its options, with random weights; None if none does.

    Raises:
        InputError: spandrel is not installed, or does not work.
    """
    theirs = _architecture(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if theirs is None:
        return None

    def build(**options: Any) -> SRNetwork:  # noqa: ANN401 - plain values
        try:
            with _as_in_2022():
                network = theirs(**options)
        except Exception as error:  # of some architecture: AssertionError, KeyError, ...
            given = ", ".join(f"{key}: {value}" for key, value in options.items())
            raise InputError(
                f"the network {name!r} cannot be built with {given or 'its defaults'} ({_shortened(error)}); correct "
                "the values",
                code="registry.invalid-value",
            ) from error
        return _adopt(network, info_of(network))

    build.__signature__ = inspect.signature(theirs)  # type: ignore[attr-defined]
    return build


def names() -> list[str]:
    """`spandrel/NAME` for every package of architectures, sorted; empty where spandrel cannot be imported."""
    return [] if advice() else sorted(f"{PREFIX}{name}" for name in _packages())


def advice() -> str:
    """What to do so that `find` finds something; empty where it does."""
    try:
        _import_spandrel()
    except InputError as error:
        return str(error)
    return ""


def _recognised(path: Path, spandrel: ModuleType, weights: dict[str, Tensor]) -> Any:  # noqa: ANN401
    """What spandrel makes of weights, under the first of their names that it knows."""
    for named in namings(weights):
        whole = _with_buffers_of_dat(path, named)
        try:
            with _as_in_2022():
                descriptor = spandrel.MAIN_REGISTRY.load(whole)
        except spandrel.UnsupportedModelError:
            continue
        except Exception as error:  # of some architecture: KeyError, AssertionError, RuntimeError, ...
            raise InputError(
                f"{path}: spandrel cannot make a network of it ({_shortened(error)}); it is incomplete, damaged or "
                "unusual",
                code="model.misfit",
            ) from error
        own = descriptor.model.state_dict()
        for name, value in whole.items():
            # Some architectures rename tensors; what they call a weight is a number with a fraction all the same.
            own.setdefault(name, value.float() if name.endswith(("weight", "bias")) else value)
        check_values(path, own, whole)
        return descriptor
    raise InputError(
        f"{path}: neither imdn_kd nor spandrel knows this network (the first tensors: "
        f"{one_line(', '.join(list(weights)[:3]))}); if it is one of BasicSR, give its type and options (--arch, "
        "`type:`)",
        code="model.unknown",
    )


def _architecture(name: str) -> type[nn.Module] | None:
    """The class of that name; only what spandrel itself publishes, since model files too can ask for it."""
    _import_spandrel()
    packages = _packages()
    for package in sorted(packages, key=lambda package: package != name):
        module = importlib.import_module(f"spandrel.architectures.{package}")
        found = getattr(module, name, None) if name in module.__all__ else None
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found
    return None


def _packages() -> list[str]:
    architectures = importlib.import_module("spandrel.architectures")
    return [found.name for found in pkgutil.iter_modules(architectures.__path__) if not found.name.startswith("_")]


def _adopt(network: nn.Module, info: ModelInfo) -> SRNetwork:
    options = getattr(network, "hyperparameters", {})
    plain = {option: json.loads(json.dumps(value)) for option, value in options.items() if _is_plain(value)}
    return adopt(network, {"type": f"{PREFIX}{_published_name(type(network))}", **plain}, info)


def _published_name(theirs: type[nn.Module]) -> str:
    """The name by which `find` finds a class, as Compact for SRVGGNetCompact."""
    package = ".".join(theirs.__module__.split(".")[:3])
    module = importlib.import_module(package)
    return next((name for name in module.__all__ if getattr(module, name) is theirs), theirs.__name__)


def _info(path: Path, descriptor: Any) -> ModelInfo:  # noqa: ANN401 - spandrel has no types for mypy
    """What is measured, made stricter where spandrel asks for more."""
    try:
        measured = measure_info(descriptor.model.eval(), descriptor.input_channels)
    except InputError as error:
        raise InputError(f"{path}: {error}", code=error.code) from error
    asked = descriptor.size_requirements
    multiple = math.lcm(measured.size_multiple, asked.multiple_of)
    return replace(
        measured, size_multiple=multiple, min_size=_next_multiple(max(measured.min_size, asked.minimum), multiple)
    )


def _is_called_plainly(descriptor: Any, info: ModelInfo) -> bool:  # noqa: ANN401
    """Whether spandrel gives an image to the network as it is, and takes what comes out."""
    copied = copy.deepcopy(descriptor)  # since what spandrel runs cannot be trained any more
    side = _next_multiple(max(info.min_size, 16), info.size_multiple)
    image = torch.rand(1, info.num_in_ch, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = copied.model.eval()(image.clone()).clamp(0, 1)
    return torch.allclose(plain, copied(image), atol=1e-4)


def _next_multiple(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _with_buffers_of_dat(path: Path, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add buffers to those weights of DAT that lack them: the size of its windows is told by buffers alone.

    Known are the windows of DAT-light (Chen et al., "Dual Aggregation Transformer for Image Super-Resolution", ICCV
    2023, https://arxiv.org/abs/2308.03364, and its released options).
    """
    first = "layers.0.blocks.0.attn.attns.0"
    if f"{first}.pos.pos_proj.weight" not in weights or f"{first}.rpe_biases" in weights:
        return weights
    blocks = {tuple(key.split(".")[1:4:2]) for key in weights if key.startswith("layers.") and ".blocks." in key}
    if blocks != {("0", str(k)) for k in range(18)} or len(weights["norm.weight"]) != 60:
        raise InputError(
            f"{path}: a DAT without its buffers, which tell the size of its windows; give the whole file",
            code="model.misfit",
        )
    architecture = importlib.import_module("spandrel.architectures.DAT")
    with _as_in_2022():
        light = architecture.DAT(embed_dim=60, depth=[18], num_heads=[6], split_size=[8, 32])
    return {**dict(light.named_buffers()), **weights}


def _import_spandrel() -> ModuleType:
    if importlib.util.find_spec("spandrel") is None:
        raise InputError(
            f"networks that spandrel recognises need its package; {how_to_install('train')}",
            code="model.needs-spandrel",
        )
    try:
        return importlib.import_module("spandrel")
    except Exception as error:  # of what it stands on: ImportError, OSError, ...
        raise InputError(
            f"spandrel cannot be used: importing it fails ({_shortened(error)}); install what it lacks",
            code="model.needs-spandrel",
        ) from error


@contextmanager
def _as_in_2022() -> Iterator[None]:
    """Several networks call `torch.meshgrid` as one did then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.meshgrid")
        yield


def _shortened(error: Exception) -> str:
    # The first line alone says too little where weights do not fit.
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 200 else f"{text[:197]}..."


def _is_plain(value: object) -> bool:
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True
