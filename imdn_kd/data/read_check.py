"""Training images read before training, so that what is wrong with one is told before it is drawn."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from imdn_kd.data.base import ImagePairs
from imdn_kd.data.image_lists import MOST_LINES
from imdn_kd.errors import InputError, Problems
from imdn_kd.utils.threads import in_order

_THREADS = 4


def read_pairs(
    pairs: ImagePairs,
    *,
    seconds: float,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Read pairs in random order, each once, until all are read or time is up; at least one.

    Args:
        pairs: training images.
        seconds: about how long.
        on_pair: called with the number of pairs read, and of all.
        clock: gives the time in seconds.

    Returns:
        How many were read.

    Raises:
        InputError: with a line for each pair that cannot be read (see `ImagePairs.read`), or whose planes are not of
            the size or kind that they should be (`data.plane`).
    """
    total, read, end = len(pairs), 0, clock() + seconds
    # Any part of the images is a sample of all folders and sources.
    order = np.random.default_rng(0).permutation(total).tolist()

    def attempt(index: int) -> InputError | None:
        try:
            _check(pairs, index)
        except InputError as error:
            return error
        return None

    with Problems(most=MOST_LINES) as problems:
        for error in in_order(attempt, order, workers=_THREADS, ahead=2 * _THREADS, name="check"):
            read += 1
            on_pair(read, total)
            with problems.at():
                if error is not None:
                    raise error
            if clock() >= end:
                break
    return read


def _check(pairs: ImagePairs, index: int) -> None:
    height, width = pairs.lq_sizes()[index].tolist()
    up, down = pairs.scale.numerator, pairs.scale.denominator
    planes = pairs.read(index)
    for plane in pairs.planes:
        image, times = planes[plane], (1, 1) if plane == "lq" else (up, down)
        wanted = (height * times[0] // times[1], width * times[0] // times[1], 3)
        if image.shape != wanted or image.dtype != np.uint8:
            raise InputError(
                f"{pairs.name(index)}: its {plane} is {image.shape} of {image.dtype}, not {wanted} of uint8; correct "
                "the data set",
                code="data.plane",
            )
