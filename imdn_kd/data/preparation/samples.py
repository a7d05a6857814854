"""Samples of a data set: an HR image with its LR images, made by a specification."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from imdn_kd.data.base import lq_plane
from imdn_kd.data.degradation.schema import Step
from imdn_kd.data.degradation.steps import degrade
from imdn_kd.data.preparation.leak_check import BenchmarkIndex
from imdn_kd.data.preparation.schema import Format
from imdn_kd.data.preparation.sources.scan import SourceImage
from imdn_kd.errors import InputError
from imdn_kd.image.io import Picture, decode_image
from imdn_kd.image.rgb import RgbImage, rgb_of
from imdn_kd.utils.progress_log import Record
from imdn_kd.utils.threads import in_order


@dataclass(frozen=True)
class PrepareSpec:
    """The specification of a data set.

    Attributes:
        scales: scales of the LR planes.
        steps: degradations that make them; None if LR images are given.
        seed: seed of the random numbers in the degradations.
        exclude: benchmarks whose images are left out.
        form: output format.
    """

    scales: tuple[Fraction, ...]
    steps: tuple[Step, ...] | None
    seed: int = 0
    exclude: BenchmarkIndex | None = None
    form: Format = "store"


@dataclass(frozen=True)
class Sample:
    """An HR image and its LR images, decoded.

    Attributes:
        name: name of the HR image.
        sha256: checksum of its file.
        planes: `gt` and the LR ones, each H x W x 3.
        was: kinds of pixels that were converted to 8-bit RGB.
    """

    name: str
    sha256: str
    planes: Mapping[str, RgbImage]
    was: list[str] = field(default_factory=list)


class SampleBuilder:
    """A builder of samples by a specification; safe to call from several threads."""

    def __init__(self, spec: PrepareSpec) -> None:
        self._spec = spec
        # BasicSR requires that the sizes of a pair fit, and one `gt` has LR images of all scales here.
        self._multiple = math.lcm(*(scale.numerator for scale in spec.scales)) if spec.form == "lmdb" else 1

    def __call__(self, original: SourceImage) -> Sample | Record:
        """Build a sample, or the record of why there is none."""
        try:
            data = original.gt.read()
            picture = decode_image(data, original.gt.label)
            gt = rgb_of(picture, original.gt.label)
            like = self._spec.exclude.match(gt) if self._spec.exclude else None
            if like is not None:
                return {"name": original.name, "excluded": f"{original.gt.label}: looks like {like}"}
            planes = {"gt": _crop(gt, self._multiple, original.gt.label)}
            for scale in self._spec.scales:
                planes[lq_plane(scale)] = self._low(original, gt, scale)
        except InputError as error:
            return {"name": original.name, "bad": str(error)}
        return Sample(original.name, hashlib.sha256(data).hexdigest(), planes, _was(picture))

    def _low(self, original: SourceImage, gt: RgbImage, scale: Fraction) -> RgbImage:
        part = _crop(gt, math.lcm(scale.numerator, self._multiple), original.gt.label)
        if self._spec.steps is not None:
            return degrade(part, scale, self._spec.steps, f"{self._spec.seed} {original.name} {scale}")
        file = original.lq[scale]
        low = rgb_of(decode_image(file.read(), file.label), file.label)
        wanted = _low_size(gt, scale)
        if low.shape[:2] != wanted:
            raise InputError(
                f"{file.label}: is {low.shape[1]}x{low.shape[0]} px, but x{float(scale):g} of {original.gt.label} "
                f"needs {wanted[1]}x{wanted[0]}; make it again",
                code="data.lr-size",
            )
        height, width = _low_size(part, scale)
        return low[:height, :width]


def build_samples(build: SampleBuilder, originals: Sequence[SourceImage], workers: int) -> Generator[Sample | Record]:
    """Build samples in threads, and yield them in order."""
    import torch

    def alone(original: SourceImage) -> Sample | Record:
        torch.set_num_threads(1)  # threads of PyTorch on top of ours would wait for each other
        return build(original)

    before = torch.get_num_threads()
    try:
        yield from in_order(alone, originals, workers=workers, ahead=2 * workers, name="prepare")
    finally:
        torch.set_num_threads(before)


def _low_size(image: RgbImage, scale: Fraction) -> tuple[int, int]:
    height, width = image.shape[:2]
    return height // scale.numerator * scale.denominator, width // scale.numerator * scale.denominator


def _crop(image: RgbImage, multiple: int, label: str) -> RgbImage:
    height, width = (side // multiple * multiple for side in image.shape[:2])
    if not height or not width:
        raise InputError(
            f"{label}: {image.shape[1]}x{image.shape[0]} px are too few for the scale; give a larger image",
            code="image.too-small",
        )
    return image[:height, :width]


def _was(picture: Picture) -> list[str]:
    """Kinds of pixels that were converted to 8-bit RGB."""
    kinds = []
    if picture.pixels.dtype != np.uint8:
        kinds.append("16 bits per channel, rounded to 8")
    if picture.pixels.ndim == 2 or picture.pixels.shape[2] < 3:
        kinds.append("grey, repeated for R, G and B")
    if picture.has_alpha:
        kinds.append("an alpha channel without transparent pixels, left out")
    return kinds
