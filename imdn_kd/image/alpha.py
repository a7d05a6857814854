"""Alpha bleeding: colours for transparent pixels, so that resizing gives no dark fringes."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def bleed_alpha(colour: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give every fully transparent pixel the colour of the nearest other pixel (alpha bleeding).

    Most programs store black there, which would give an opaque shape a dark fringe when it is enlarged.

    Args:
        colour: H x W x C.
        alpha: H x W; 0 is transparent.

    Returns:
        H x W x C; `colour` itself where no pixel is transparent, or all are.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    filled: npt.NDArray[Any] = colour[rows, columns]
    return filled
