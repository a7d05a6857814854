"""LR planes that are added to a store later."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

from imdn_kd.data.preparation.samples import PrepareSpec, Sample, SampleBuilder, build_samples
from imdn_kd.data.preparation.sources.scan import SourceImage
from imdn_kd.data.preparation.sources.sources import Source, store_source
from imdn_kd.data.store_writer import add_plane
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import RgbImage
from imdn_kd.utils.progress_log import Record


def add_lr_planes(
    store: Path,
    source: Source,
    planes: Mapping[str, Mapping[str, Any]],
    spec: PrepareSpec,
    *,
    workers: int,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Add LR planes to a store; all else in it stays. The same call resumes.

    Args:
        store: made from `source`.
        source: has the LR images, if these are given.
        planes: descriptions of the new planes.
        spec: how the LR images are made.
        workers: threads.
        on_image: called with the number of finished images of a plane, and of all.

    Raises:
        InputError: `prepare.cannot-add`: an image of the store has no usable LR image; `prepare.cannot-write`; as
            `add_plane`.
    """
    lq_of = {original.name: original.lq for original in source.images}
    originals = [dataclasses.replace(each, lq=lq_of.get(each.name, {})) for each in store_source(store, ()).images]
    for plane, description in planes.items():
        build = SampleBuilder(dataclasses.replace(spec, scales=(Fraction(description["scale"]),), exclude=None))
        try:
            with closing(_LrImages(build, originals, plane, workers, on_image)) as images:
                add_plane(store, plane, images, description=description)
        except OSError as error:
            raise InputError(
                f"{store}: cannot write it ({error.strerror}); make room, and run the same command again to resume",
                code="prepare.cannot-write",
            ) from error


class _LrImages:
    """The images of one LR plane, made ahead in threads from the first that is asked for on."""

    def __init__(
        self,
        build: SampleBuilder,
        originals: Sequence[SourceImage],
        plane: str,
        workers: int,
        on_image: Callable[[int, int], None] | None,
    ) -> None:
        self._build, self._originals, self._plane, self._workers = build, originals, plane, workers
        self._on_image = on_image or (lambda done, total: None)
        self._samples: Generator[Sample | Record] | None = None

    def __call__(self, number: int) -> RgbImage:
        if self._samples is None:
            self._samples = build_samples(self._build, self._originals[number:], self._workers)
        self._on_image(number, len(self._originals))
        sample = next(self._samples)
        if not isinstance(sample, Sample):
            raise InputError(
                f"{sample['bad']}; so {self._plane} cannot be added, choose another --output", code="prepare.cannot-add"
            )
        return sample.planes[self._plane]

    def close(self) -> None:
        if self._samples is not None:
            self._samples.close()
