"""A few degraded versions of every image of a store, made once: what teachers make of them can be cached."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

from imdn_kd.data.degradation.schema import Step
from imdn_kd.data.degradation.steps import degrade, describe
from imdn_kd.data.store import Pixels, Store
from imdn_kd.data.store_writer import add_planes


class DegradedVersions:
    """LR images by a degradation that draws at random, `count` of each HR image, as planes of its store.

    Each depends on the steps, the name of the image and the number of the version alone: not on the seed of a run, so
    that several runs share them and what teachers make of them.

    Args:
        path: folder of the store.
        scale: px of HR per px of LR.
        steps: of the degradation.
        count: versions of each image.

    Attributes:
        planes: names and descriptions, by version.
        steps: as given.
    """

    def __init__(self, path: Path | str, scale: Fraction, steps: Sequence[Step], count: int) -> None:
        self._path, self._scale, self.steps = Path(path), scale, steps
        made = {"scale": str(scale), "degradation": [step.model_dump(mode="json") for step in steps]}
        stamp = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:12]
        self.planes: dict[str, dict[str, Any]] = {
            f"degraded_x{float(scale):g}_{stamp}_{version}": {
                "scale": str(scale),
                "degradation": describe(steps),
                "stamp": stamp,
                "version": version,
            }
            for version in range(count)
        }

    @property
    def is_there(self) -> bool:
        """Whether all are complete."""
        store = Store(self._path)
        return all(store.has(plane) for plane in self.planes)

    def fill(self, on_image: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Make what is missing; can be interrupted and resumed.

        Args:
            on_image: called with the number of images that are done, and of all.

        Raises:
            InputError: see `add_planes`.
            OSError: the store cannot be written.
        """
        store, up = Store(self._path), self._scale.numerator

        def make(index: int, planes: Collection[str]) -> Mapping[str, Pixels]:
            on_image(index, len(store))
            gt = store.image(index)
            height, width = (side // up * up for side in gt.shape[:2])

            def version(plane: str) -> Pixels:
                seed = f"{plane} {store.name(index)}"
                return degrade(gt[:height, :width], self._scale, self.steps, seed)

            return dict(zip(planes, pool.map(version, planes), strict=True))

        with ThreadPoolExecutor(os.cpu_count(), "degrade") as pool:
            add_planes(self._path, self.planes, make)
        on_image(len(store), len(store))
