"""Losses between images, value by value from the formulas, in float64."""

from __future__ import annotations

import cmath
import math

import numpy as np


def l1(sr: np.ndarray, gt: np.ndarray) -> float:
    return sum(abs(float(a) - float(b)) for a, b in zip(sr.ravel(), gt.ravel(), strict=True)) / sr.size


def mse(sr: np.ndarray, gt: np.ndarray) -> float:
    return sum((float(a) - float(b)) ** 2 for a, b in zip(sr.ravel(), gt.ravel(), strict=True)) / sr.size


def charbonnier(sr: np.ndarray, gt: np.ndarray, eps: float) -> float:
    pairs = zip(sr.ravel(), gt.ravel(), strict=True)
    return sum(math.sqrt((float(a) - float(b)) ** 2 + eps) for a, b in pairs) / sr.size


def half_spectrum(plane: np.ndarray) -> np.ndarray:
    """The Fourier sums of a real H x W plane for all vertical and for the first W // 2 + 1 horizontal frequencies."""
    height, width = plane.shape
    out = np.empty((height, width // 2 + 1), complex)
    for u, v in np.ndindex(out.shape):
        out[u, v] = sum(
            float(plane[y, x]) * cmath.exp(-2j * cmath.pi * (u * y / height + v * x / width))
            for y, x in np.ndindex(height, width)
        )
    return out


def fft(sr: np.ndarray, gt: np.ndarray, norm: str) -> float:
    height, width = sr.shape[2:]
    factor = {"backward": 1, "ortho": 1 / math.sqrt(height * width), "forward": 1 / (height * width)}[norm]
    parts = []
    for index in np.ndindex(sr.shape[:2]):
        difference = factor * (half_spectrum(sr[index]) - half_spectrum(gt[index]))
        parts += [*abs(difference.real).ravel(), *abs(difference.imag).ravel()]
    return sum(parts) / len(parts)
