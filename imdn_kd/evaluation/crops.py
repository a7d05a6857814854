"""Where in a picture several results differ most: crops to show, chosen by a rule rather than by eye."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Place = tuple[int, int, int, int]
"""Top, left, height, width, px."""


def most_different(images: Sequence[Image], *, side: int = 48, count: int = 3) -> list[Place]:
    """Return the squares in which images differ most, the most different first, none overlapping another.

    The difference of a pixel is the highest less the lowest of its levels among the images, summed over the channels.
    Of equal squares the first in reading order is taken. Squares without any difference are left out, but the first.

    Args:
        images: two or more, H x W x C, of one shape.
        side: of the squares, px; less where the images are smaller.
        count: squares at most.
    """
    rows, columns, channels = images[0].shape
    spread = np.zeros((rows, columns), np.int64)
    for channel in range(channels):
        levels = np.stack([image[..., channel] for image in images])
        spread += levels.max(0).astype(np.int64) - levels.min(0)
    height, width = min(side, rows), min(side, columns)
    # Sums over all squares, from sums over all rectangles that begin at the top left.
    whole = np.pad(spread, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    sums = whole[height:, width:] - whole[:-height, width:] - whole[height:, :-width] + whole[:-height, :-width]
    places: list[Place] = []
    while len(places) < count:
        top, left = (int(at) for at in np.unravel_index(sums.argmax(), sums.shape))
        if sums[top, left] < 0 or (places and sums[top, left] == 0):
            break
        places.append((top, left, height, width))
        sums[max(top - height + 1, 0) : top + height, max(left - width + 1, 0) : left + width] = -1
    return places
