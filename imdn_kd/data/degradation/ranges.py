"""What the options of degradations have in common: ranges, probabilities and choices, and drawing from them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

Interpolation = Literal["area", "bilinear", "bicubic"]
"""Modes of PyTorch's `interpolate`."""

Shape = Literal["gaussian", "generalized", "plateau"]
"""Of a blur kernel; see `imdn_kd.data.degradation.kernels.blur_kernel`."""


def bounds(value: float | list[float]) -> tuple[float, float]:
    """The lowest and highest value of a `Range`."""
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def drawn(value: float | list[float], random: np.random.Generator) -> float:
    """A number of a `Range`, uniformly; nothing is drawn for a single number."""
    low, high = bounds(value)
    return low if low == high else float(random.uniform(low, high))


def one_of(choices: Sequence[T], random: np.random.Generator, shares: Sequence[float] | None = None) -> T:
    """One of the choices, as often as its part of all `shares` says; uniformly without these."""
    ends = list(accumulate(shares if shares is not None else [1.0] * len(choices)))
    return choices[min(bisect_right(ends, random.random() * ends[-1]), len(choices) - 1)]


def _check_range(value: float | list[float]) -> float | list[float]:
    low, high = bounds(value)
    if not 0 <= low <= high <= 255:
        raise PydanticCustomError("range", "give a number from 0 to 255, or two, [lowest, highest]")
    return value


def _check_pair(value: list[float]) -> list[float]:
    _check_range(value)
    return value


Pair = Annotated[list[float], Field(min_length=2, max_length=2), AfterValidator(_check_pair)]
"""Two numbers from 0 to 255, [lowest, highest]."""

Range = Annotated[float | Annotated[list[float], Field(min_length=2, max_length=2)], AfterValidator(_check_range)]
"""A number from 0 to 255, or two between which one is drawn uniformly."""

Probability = Annotated[float, Field(ge=0, le=1)]
