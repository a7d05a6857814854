"""MATLAB's bicubic resize, pixel by pixel from the formulas."""

from __future__ import annotations

import math

import numpy as np


def cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x <= 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def mirror(i: int, length: int) -> int:
    while not 0 <= i < length:
        i = -1 - i if i < 0 else 2 * length - 1 - i
    return i


def resize_line(line: np.ndarray, out_length: int, scale: float) -> np.ndarray:
    """One row or column, in float64, neither rounded nor clamped."""
    stretch = max(1.0, 1 / scale)
    out = np.zeros(out_length)
    for k in range(out_length):
        centre = (k + 0.5) / scale - 0.5
        total = value = 0.0
        for i in range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1):
            weight = cubic((i - centre) / stretch)
            total += weight
            value += weight * float(line[mirror(i, len(line))])
        out[k] = value / total
    return out


def to_class(value: float, dtype: np.dtype) -> float:
    if dtype.kind == "f":
        return value
    # A tie counts as one even if noise puts it just below.
    return min(max(math.floor(value + 0.5 + 1e-11 * np.iinfo(dtype).max), 0), np.iinfo(dtype).max)


def imresize(image: np.ndarray, size: tuple[int, int], scales: tuple[float, float]) -> np.ndarray:
    for axis in sorted((0, 1), key=lambda axis: scales[axis]):
        lines = np.moveaxis(image, axis, 0)
        out = np.empty((size[axis], *lines.shape[1:]), image.dtype)
        for index in np.ndindex(lines.shape[1:]):
            line = resize_line(lines[(slice(None), *index)], size[axis], scales[axis])
            for k, value in enumerate(line):
                out[(k, *index)] = to_class(value, image.dtype)
        image = np.moveaxis(out, 0, axis)
    return image
