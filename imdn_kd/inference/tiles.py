"""Tile planning: where to cut an image so that each tile with its overlap fits a number of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

SMALLEST_INNER = 16
"""Side in px below which tiles are not cut, however small the budget: almost all work would be overlap."""


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
class Tile:
    """One tile: `inner` is kept of the result; `outer`, inner and overlap, is what the network sees."""

    inner: Box
    outer: Box


def plan_tiles(
    height: int, width: int, *, multiple: int, overlap: int, max_area: int | None = None, side: int | None = None
) -> list[Tile]:
    """Cover height x width px (multiples of `multiple`) with tiles, row by row.

    All outer boxes have one size, since engines prepare themselves for each: those at the edges of the image reach
    further inwards than they need.

    Args:
        height: rows of the image.
        width: columns of the image.
        multiple: the edges of all boxes are multiples of this (or the edges of the image).
        overlap: overlap on each inner side, rounded up to `multiple`.
        max_area: px that a tile with its overlap may have. Among the grids that fit, the one that computes the fewest
            px in all is taken. Never cut below inner boxes of `SMALLEST_INNER`.
        side: cut inner boxes of this side instead of planning from `max_area`.
    """
    overlap = round_up(overlap, multiple)
    if side is not None:
        inner_height = inner_width = round_up(max(1, side), multiple)
    else:
        area = height * width if max_area is None else max_area
        inner_height, inner_width = _best_inner(height, width, multiple, overlap, area)
    rows, columns = _spans(height, inner_height, overlap), _spans(width, inner_width, overlap)
    return [
        Tile(Box(inner_top, inner_left, inner_bottom, inner_right), Box(top, left, bottom, right))
        for (inner_top, inner_bottom), (top, bottom) in rows
        for (inner_left, inner_right), (left, right) in columns
    ]


def _best_inner(height: int, width: int, multiple: int, overlap: int, max_area: int) -> tuple[int, int]:
    smallest = round_up(SMALLEST_INNER, multiple)
    best = (smallest, smallest)
    cost: float = float("inf")
    for columns in range(1, -(-width // smallest) + 1):
        inner_width = round_up(-(-width // columns), multiple)
        outer_width = min(width, inner_width + (2 * overlap if columns > 1 else 0))
        rows_that_fit = max_area // outer_width
        inner_height = height if rows_that_fit >= height else (rows_that_fit - 2 * overlap) // multiple * multiple
        if inner_height < min(smallest, height):
            continue
        rows = -(-height // inner_height)
        inner_height = round_up(-(-height // rows), multiple)
        computed = (height + 2 * overlap * (rows - 1)) * (width + 2 * overlap * (columns - 1))
        if computed < cost:
            best, cost = (inner_height, inner_width), computed
    return best


def _spans(length: int, step: int, overlap: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """The inner and the outer edges of the tiles of a row or column; `overlap` is what the outer ones need at least."""
    inner = [(start, min(length, start + step)) for start in range(0, length, step)]
    side = max(min(length, stop + overlap) - max(0, start - overlap) for start, stop in inner)
    starts = [min(max(0, start - overlap), length - side) for start, _ in inner]
    return [(span, (start, start + side)) for span, start in zip(inner, starts, strict=True)]


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `value`."""
    return -(-value // multiple) * multiple
