"""Where to cut an image, so that a crop with its overlap fits into a number of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

SMALLEST_CORE = 16
"""Side in px below which crops are not cut, however small the budget: almost all work would be overlap."""


class Box(NamedTuple):
    """Rows [top, bottom) and columns [left, right), in px of the input image or of a larger or smaller map."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.right - self.left

    def times(self, factor: Fraction | int) -> Box:
        """The same box on a map `factor` times as large. The edges must fall on whole pixels of it."""
        return Box(*(int(edge * factor) for edge in self))

    def inside(self, outer: Box) -> tuple[slice, slice]:
        """Index of this box in an array that holds `outer`."""
        return (
            slice(self.top - outer.top, self.bottom - outer.top),
            slice(self.left - outer.left, self.right - outer.left),
        )


@dataclass(frozen=True)
class Crop:
    """One crop: `core` is kept of the result; `padded`, core and overlap, is what the network sees."""

    core: Box
    padded: Box


def plan_crops(
    height: int, width: int, *, multiple: int, radius: int, max_area: int | None = None, side: int | None = None
) -> list[Crop]:
    """Cover height x width px (multiples of `multiple`) with crops, row by row.

    Args:
        height: rows of the image.
        width: columns of the image.
        multiple: the edges of all boxes are multiples of this (or the edges of the image).
        radius: overlap on each inner side, rounded up to `multiple`.
        max_area: px that a crop with its overlap may have. Among the grids that fit, the one that computes the fewest
            px in all is taken. Never cut below cores of `SMALLEST_CORE`.
        side: cut cores of this side instead of planning from `max_area`.
    """
    overlap = round_up(radius, multiple)
    if side is not None:
        core_height = core_width = round_up(max(1, side), multiple)
    else:
        area = height * width if max_area is None else max_area
        core_height, core_width = _best_core(height, width, multiple, overlap, area)
    crops = []
    for top, bottom in _spans(height, core_height):
        for left, right in _spans(width, core_width):
            padded = Box(
                max(0, top - overlap),
                max(0, left - overlap),
                min(height, bottom + overlap),
                min(width, right + overlap),
            )
            crops.append(Crop(Box(top, left, bottom, right), padded))
    return crops


def _best_core(height: int, width: int, multiple: int, overlap: int, max_area: int) -> tuple[int, int]:
    smallest = round_up(SMALLEST_CORE, multiple)
    best = (smallest, smallest)
    cost: float = float("inf")
    for columns in range(1, -(-width // smallest) + 1):
        core_width = round_up(-(-width // columns), multiple)
        padded_width = min(width, core_width + (2 * overlap if columns > 1 else 0))
        rows_that_fit = max_area // padded_width
        core_height = height if rows_that_fit >= height else (rows_that_fit - 2 * overlap) // multiple * multiple
        if core_height < min(smallest, height):
            continue
        rows = -(-height // core_height)
        core_height = round_up(-(-height // rows), multiple)
        computed = (height + 2 * overlap * (rows - 1)) * (width + 2 * overlap * (columns - 1))
        if computed < cost:
            best, cost = (core_height, core_width), computed
    return best


def _spans(length: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(length, start + step)) for start in range(0, length, step)]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
