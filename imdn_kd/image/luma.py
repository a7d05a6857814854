"""Luma of ITU-R BT.601, https://www.itu.int/rec/R-REC-BT.601, as MATLAB's `rgb2ycbcr` has it."""

from __future__ import annotations

import numpy as np

LUMA = np.array([65.481, 128.553, 24.966]) / 255
"""Weights of R, G and B (0 to 255) in Y, which goes from 16 to 235."""

FULL_RANGE_LUMA = LUMA * (255 / 219)
"""The same for a Y that spans the range of R, G and B: their sum is 1."""
