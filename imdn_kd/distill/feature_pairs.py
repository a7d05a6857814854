"""Pairs of features: which one of a student is compared with which one of a teacher, and whether they can be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.distill.feature_names import match, resolve
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.errors import InputError
from imdn_kd.losses.base import upcast

Names = list[tuple[str, str]]
"""Hooks of the student and of a teacher that belong together."""

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of features, N x C x H x W, by hook."""

MISMATCH = "distill.features-mismatch"
"""Code of the error about features that cannot be compared."""


@dataclass(frozen=True)
class FeaturePair:
    """Two features that are compared.

    Attributes:
        student: hook of the student.
        teacher: hook of the teacher.
        weight: factor of their loss.
        widths: numbers of channels of both.
        pooled: what to say where they differ in height or width, so that they are pooled; empty where they do not.
        shape: of the teacher's, N x C x H x W, for the input that features were probed with.
    """

    student: str
    teacher: str
    weight: float
    widths: tuple[int, int]
    pooled: str = ""
    shape: tuple[int, ...] = ()


def pool_to_smaller(mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Average features over areas, so that both have the smaller height and the smaller width of the two.

    As RepDistiller (https://github.com/HobbitLong/RepDistiller) and torchdistill do before they compare features. Half
    precision becomes float32. Features of the same size are returned as they are.

    Args:
        mine: N x C x H x W.
        theirs: N x D x h x w.
    """
    size = (min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3]))
    mine, theirs = (
        each if each.shape[2:] == size else functional.adaptive_avg_pool2d(upcast(each), size)
        for each in (mine, theirs)
    )
    return mine, theirs


def resolve_names(at: Sequence[str | Mapping[str, str]], student: nn.Module, teacher: nn.Module) -> Names:
    """Return the hooks that names stand for, wildcards expanded; see `FeatureTerm`.

    Raises:
        InputError: a network lacks one of them, or there are more in one network than in the other.
    """
    found: Names = []
    for each in at:
        if isinstance(each, str):
            name, pair = each, match(student, teacher, each)
        else:
            ((name, other),) = each.items()
            pair = resolve(student, name), resolve(teacher, other)
        mine, theirs = _expanded(student, pair[0]), _expanded(teacher, pair[1])
        if len(mine) != len(theirs):
            counts = f"{len(mine)} features of the student and {len(theirs)} of the teacher"
            raise InputError(
                f"{name}: stands for {counts}; name them in pairs, as [STUDENT: TEACHER, ...]", code=MISMATCH
            )
        found += zip(mine, theirs, strict=True)
    return found


def _expanded(network: nn.Module, hook: str) -> Sequence[str]:
    """The hooks that one with wildcards stands for."""
    if hook == SR:
        return [SR]
    hooks = FeatureHooks(network, [hook])
    hooks.remove()
    return hooks.names


def pair_features(
    names: Names, loss: nn.Module, mine: Shapes, theirs: Shapes, weights: Sequence[float] | None = None
) -> list[FeaturePair]:
    """Pair features, pooled where they differ in size.

    Args:
        names: the hooks.
        loss: between features, see `imdn_kd.losses.base.FeatureLoss`; any other module takes equal shapes.
        mine: shapes of the student's features.
        theirs: shapes of the teacher's.
        weights: one for each pair (default: 1 / their number).

    Raises:
        InputError: the loss cannot compare them, or there are not as many weights as pairs.
    """
    weights = weights or [1 / len(names)] * len(names)
    if len(weights) != len(names):
        raise InputError(f"there are {len(names)} features, but {len(weights)} weights for them", code=MISMATCH)
    pairs = []
    for (one, other), weight in zip(names, weights, strict=True):
        which = f"{one} of the student and {other} of the teacher"
        narrow, wide = mine[one][1], theirs[other][1]
        unequal = mine[one][2:] != theirs[other][2:]
        sizes = f"{_size(mine[one])} and {_size(theirs[other])}"
        pooled = f"{which} are pooled to the smaller size ({sizes} for one input)" if unequal else ""
        alike = getattr(loss, "requires_same_channels", True) and not getattr(loss, "adapts", False)
        if narrow != wide and alike:
            raise InputError(
                f"{which} have {narrow} and {wide} channels, which {type(loss).__name__} cannot compare; choose "
                "others, or another loss",
                code=MISMATCH,
            )
        pairs.append(FeaturePair(one, other, weight, (narrow, wide), pooled, theirs[other]))
    return pairs


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[3]}x{shape[2]}"
