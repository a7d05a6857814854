"""Transparency: colours that nobody sees must not bleed into those that are seen."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def fill_transparent(colour: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Give every fully transparent pixel the colour of the nearest pixel that is not.

    Most programs store black there; enlarged as it is, an opaque shape would get a dark fringe.

    Args:
        colour: H x W x C.
        alpha: H x W; 0 is transparent.

    Returns:
        H x W x C; `colour` itself where nothing is to be done.
    """
    hidden = alpha == 0
    if not hidden.any() or hidden.all():
        return colour
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(hidden, return_distances=False, return_indices=True)
    filled: npt.NDArray[Any] = colour[rows, columns]
    return filled
