"""Semantic names of features, which mean the same in networks of different kinds."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from torch import nn

from imdn_kd.distill.hooks import SR
from imdn_kd.errors import InputError

_SEMANTIC = re.compile(rf"head|block\.(\d+)|fusion|body_out|{SR}")

_HEADS = ("fea_conv", "conv_first", "to_feat", "input", "head", "conv_1")
"""Names of the layer that makes features of the image."""

_FUSIONS = ("c", "conv_cat")
"""Names of the layer that joins the outputs of several blocks."""

_BODY_ENDS = ("LR_conv", "conv_after_body", "conv_body", "conv_after", "output", "conv_2")
"""Names of the layer after the blocks, to whose output that of the head is added."""

_DEEPEST = 5
"""How many levels down blocks are searched: `layers.0.residual_group.blocks.0` is on the fifth."""


def semantic_names(network: nn.Module) -> dict[str, str]:
    """The semantic names that a network has, and the hook (`PATH[@CALL][:input]`) that each stands for.

    - `head`: the features made of the image, before the blocks.
    - `block.1`, `block.2`, ...: the outputs of the blocks: consecutive modules of one class, on the uppermost level
      that has two or more (residual groups if there are several, otherwise the parts of the only one).
    - `fusion`: the outputs of several blocks, joined.
    - `body_out`: the output of the blocks and the layer after them, before that of the head is added.
    - `sr`: the output.

    All but `sr` may be missing. They are known for the IMDN family, the networks of BasicSR and most of spandrel's;
    `block` and `head` are usually found in others.
    """
    ancestry = {kind.__name__ for kind in type(network).__mro__}
    if "SRVGGNetCompact" in ancestry:
        # Convolutions and activations in turn; what counts are these.
        outputs = [f"body.{k}" for k in range(1, len(network.get_submodule("body")._modules) - 1, 2)]
        return {"head": outputs[0], **_numbered(outputs[1:]), "body_out": outputs[-1], SR: SR}
    if "ECBSR" in ancestry:
        # Head and tail are of the same class as the blocks.
        head, *blocks, tail = (f"backbone.{k}" for k in range(len(network.get_submodule("backbone")._modules)))
        return {"head": head, **_numbered(blocks), "body_out": f"{tail}:input", SR: SR}
    tops = dict(network.named_children())
    parent, blocks = _blocks(network)
    names = {"head": next((name for name in _HEADS if name in tops), None) or _first_convolution(network)}
    if "MSRResNet" in ancestry:
        names["head"] = "body:input"  # the activation after the head is shared with the tail
    names |= _numbered(blocks)
    names["fusion"] = next((name for name in _FUSIONS if name in tops), None)
    names["body_out"] = next((name for name in _BODY_ENDS if name in tops), None)
    if names["body_out"] is None and blocks and isinstance(network.get_submodule(parent), nn.Sequential):
        # All of the sequence, where it holds the body and nothing else.
        first = next(iter(network.get_submodule(parent)._modules))
        names["body_out"] = parent if blocks[0] == f"{parent}.{first}" else None
    return {name: hook for name, hook in (names | {SR: SR}).items() if hook is not None}


def resolve(network: nn.Module, name: str) -> str:
    """The hook of `network` that `name` stands for; what is no semantic name is returned as it is.

    Raises:
        InputError: a semantic name that this network does not have.
    """
    if not _SEMANTIC.fullmatch(name):
        return name
    names = semantic_names(network)
    if name not in names:
        count = sum(each.startswith("block.") for each in names)
        has = [each for each in names if not each.startswith("block.")]
        if count:
            has.insert("head" in names, f"block.1 to block.{count}")
        raise InputError(
            f"{type(network).__name__} has no feature {name!r}; give one of {', '.join(has)}, or the path of a module",
            code="hooks.unknown-feature",
        )
    return names[name]


def match(student: nn.Module, teacher: nn.Module, name: str) -> tuple[str, str]:
    """The hooks of student and teacher that belong together.

    Block k of a student with D_s blocks belongs to block k * D_t / D_s of a teacher with D_t, rounded (a half up) and
    at least 1; other semantic names to the same names. What is no semantic name stands for itself in both.

    Args:
        student: the network that is trained.
        teacher: the network that it learns from.
        name: a semantic name or a hook.

    Raises:
        InputError: student or teacher lacks a semantic name.
    """
    named = _SEMANTIC.fullmatch(name)
    of_student, of_teacher = resolve(student, name), name
    if named and named[1] is not None:
        depths = [sum(each.startswith("block.") for each in semantic_names(net)) for net in (student, teacher)]
        of_teacher = f"block.{max(1, math.floor(int(named[1]) * depths[1] / depths[0] + 0.5))}"
    return of_student, resolve(teacher, of_teacher)


def _numbered(blocks: list[str]) -> dict[str, str]:
    return {f"block.{k}": path for k, path in enumerate(blocks, 1)}


def _blocks(network: nn.Module) -> tuple[str, list[str]]:
    """Path of the module that has the blocks, and their paths."""
    level: list[str] = [""]
    single: tuple[str, list[str]] = ("", [])
    for _ in range(_DEEPEST):
        runs = [(parent, run) for parent in level for run in _runs(network, parent)]
        parent, run = max(runs, key=lambda each: len(each[1]), default=("", []))
        if len(run) > 1:
            return parent, run
        if run and not single[1]:
            single = parent, run
        level = [_joined(path, name) for path in level for name, _ in network.get_submodule(path).named_children()]
    return single


def _runs(network: nn.Module, parent: str) -> Iterator[list[str]]:
    """Paths of the numbered children of a module that have parts and are of one class, one after the other."""
    children = network.get_submodule(parent).named_children()

    def kind(child: tuple[str, nn.Module]) -> object:
        name, module = child
        numbered = re.fullmatch(r"(.*?)\d+", name)
        return (numbered[1], type(module)) if numbered and any(True for _ in module.children()) else None

    for key, run in itertools.groupby(children, kind):
        if key is not None:
            yield [_joined(parent, name) for name, _ in run]


def _joined(parent: str, name: str) -> str:
    return f"{parent}.{name}" if parent else name


def _first_convolution(network: nn.Module) -> str | None:
    return next((path for path, module in network.named_modules() if type(module) is nn.Conv2d), None)
