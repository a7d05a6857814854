"""LR patches made from HR images while training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from imdn_kd.data.degradation.schema import Step
from imdn_kd.data.degradation.steps import degrade
from imdn_kd.image.rgb import RgbImage

MARGIN = 8
"""How much of the image around a patch is degraded with it, px of the LR image, if there is so much."""

_STREAM = int.from_bytes(b"degrade", "big") << 64  # other users of a seed get other random numbers


@dataclass(frozen=True)
class LrPatches:
    """Makes LR patches by the steps: each depends on image, place, seed, iteration and number of the sample alone.

    Attributes:
        steps: of the degradation; see `imdn_kd.data.degradation.schema.check_steps`.
        scale: px of HR per px of LR.
        seed: 0 to 2**63.
    """

    steps: Sequence[Step]
    scale: Fraction
    seed: int

    def patch(self, gt: RgbImage, corner: tuple[int, int], side: int, step: int, number: int) -> RgbImage:
        """Make one patch.

        Args:
            gt: the HR image, H x W x 3; its sides are multiples of the scale's numerator.
            corner: top and left of the patch, px of LR, multiples of the scale's denominator.
            side: of the patch, px of LR.
            step: the iteration.
            number: of the sample among those of all processes.

        Returns:
            side x side x 3.
        """
        up, down = self.scale.numerator, self.scale.denominator
        random = np.random.Generator(np.random.Philox(key=_STREAM + self.seed, counter=(step << 128) + (number << 64)))
        margin = -(-MARGIN // down)
        starts, stops = [], []
        for start, length in zip(corner, gt.shape, strict=False):
            # So that the blocks of JPEG lie anywhere in a patch.
            before = margin + int(random.integers(MARGIN))
            starts.append(max(start // down - before, 0))
            stops.append(min((start + side) // down + margin, length // up))
        (top, left), (bottom, right) = starts, stops
        lq = degrade(gt[top * up : bottom * up, left * up : right * up], self.scale, self.steps, random)
        row, column = corner[0] - top * down, corner[1] - left * down
        return lq[row : row + side, column : column + side]
