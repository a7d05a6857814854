"""PSNR and SSIM, window by window from the formulas, on float64 planes."""

from __future__ import annotations

import math

import numpy as np


def luma(rgb: np.ndarray) -> np.ndarray:
    out = np.empty(rgb.shape[:2])
    for i, j in np.ndindex(out.shape):
        r, g, b = (float(v) / 255 for v in rgb[i, j])
        out[i, j] = 16 + 65.481 * r + 128.553 * g + 24.966 * b
    return out


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    squares = [(float(x) - float(y)) ** 2 for x, y in zip(a.ravel(), b.ravel(), strict=True)]
    mse = sum(squares) / len(squares)
    return 20 * math.log10(255 / math.sqrt(mse)) if mse else math.inf


def gaussian_window(side: int = 11, sigma: float = 1.5) -> np.ndarray:
    window = np.empty((side, side))
    for i, j in np.ndindex(side, side):
        window[i, j] = math.exp(-((i - side // 2) ** 2 + (j - side // 2) ** 2) / (2 * sigma**2))
    return window / window.sum()


def ssim(a: np.ndarray, b: np.ndarray) -> float:
    window = gaussian_window()
    side = len(window)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(a.shape[0] - side + 1):
        for j in range(a.shape[1] - side + 1):
            x, y = a[i : i + side, j : j + side], b[i : i + side, j : j + side]
            mx, my = (window * x).sum(), (window * y).sum()
            vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
            cov = (window * (x - mx) * (y - my)).sum()
            values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(values))
