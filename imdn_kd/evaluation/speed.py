"""How long a model takes for a picture on this machine: a short test, for orientation."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from imdn_kd.inference.sizes import Size
from imdn_kd.inference.upscaler import NetworkRun, Upscaler

RESULT: Size = (720, 1280)
"""Height and width of the result that is timed, px."""

_RUNS = 3


@dataclass(frozen=True)
class Speed:
    """Time for a picture whose result is `RESULT`.

    Attributes:
        seconds: the least of a few runs, pixels to pixels.
        run: what ran the model.
    """

    seconds: float
    run: NetworkRun

    @property
    def megapixels_per_second(self) -> float:
        """Of the result."""
        return RESULT[0] * RESULT[1] / 1e6 / self.seconds


def measure_speed(model: str, *, engine: str = "auto") -> Speed:
    """Time a model; the first time, what runs it is chosen too, which takes longer.

    Args:
        model: name of a student, or a model file.
        engine: see `Upscaler`.

    Raises:
        InputError: as `Upscaler`.
    """
    upscaler = Upscaler(model, engine=engine)
    height, width = (-(-side // upscaler.scale) for side in RESULT)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    seconds = []
    for _ in range(1 + _RUNS):  # the first time, more is done
        start = time.perf_counter()
        large = upscaler(image)
        seconds.append(time.perf_counter() - start)
    return Speed(min(seconds[1:]), upscaler.networks(image.shape[:2], large.shape[:2])[0])
