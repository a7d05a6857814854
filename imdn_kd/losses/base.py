"""Base classes of the losses: between images, and between feature maps of a student and a teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError

SHAPES_DIFFER = "loss.shapes-differ"
"""Code of the error about inputs whose shapes do not fit each other."""

WHOLE = "whole"
"""Name of the summary that is the map itself."""

OUT_OF_RANGE = "loss.out-of-range"
"""Code of the error about a number that a loss cannot use."""


class PixelLoss(nn.Module, ABC):
    """A loss between two batches of images of the same shape.

    Every such loss is a mean over all values, so neither the batch size nor the image size changes its scale, and is
    computed in float32 or better whatever the precision of the images.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32.

        Args:
            sr: N x C x H x W, the output of a network, floating.
            gt: the target, of the same shape.

        Raises:
            InputError: the shapes differ.
        """
        if sr.shape != gt.shape:
            shapes = f"{tuple(sr.shape)} and {tuple(gt.shape)}"
            raise InputError(
                f"output and target differ in shape: {shapes}; does the scale fit the images?", code=SHAPES_DIFFER
            )
        return self.compute(upcast(sr), upcast(gt))

    @abstractmethod
    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the loss of images of the same shape that are at least float32."""


class FeatureLoss(nn.Module, ABC):
    """A loss between two batches of feature maps, or of images.

    Every such loss is a mean over the samples, so the batch size does not change its scale; it is computed in float32
    or better whatever the precision of the maps, also under autocast; the teacher gets no gradient.

    What a loss compares may be less than the maps: their mean over the channels, or their means over nodes. It says so
    by its `summary`, which can be cached in place of the map: that of a crop is the crop of that of the image, if the
    crop starts at a multiple of `cell`.

    Attributes:
        cell: side, in px of the map, of the square that a value of the summary is made of.
        summary_name: what the summary is; equal names mean equal summaries.
        requires_same_channels: whether student and teacher must have the same number of channels.
        adapts: whether a 1x1 convolution is trained for the student where they do not.
        compares_samples: whether samples are compared with each other, so that the loss depends on the batch.
    """

    requires_same_channels = False
    adapts = False
    compares_samples = False
    cell = 1
    summary_name = WHOLE

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32.

        Args:
            student: N x C x H x W, floating.
            teacher: N x D x H x W; D may differ from C unless `requires_same_channels`.

        Raises:
            InputError: the shapes do not fit.
        """
        self._check(student, teacher)
        with torch.autocast(student.device.type, enabled=False):
            return self.compute(self.summary(upcast(student)), self.summary(upcast(teacher.detach())))

    def against(self, student: Tensor, summary: Tensor) -> Tensor:
        """Return the loss for a summary of the teacher's features in place of these.

        Args:
            student: N x C x H x W, floating.
            summary: of the teacher's map, N x K x ceil(H / cell) x ceil(W / cell), of any floating type.

        Raises:
            InputError: the shapes do not fit.
        """
        with torch.autocast(student.device.type, enabled=False):
            mine = self.summary(upcast(student))
            self._check(mine, summary)
            return self.compute(mine, upcast(summary.detach()))

    def summary(self, features: Tensor) -> Tensor:
        """What is compared of maps N x C x H x W, at least float32: N x K x ceil(H / cell) x ceil(W / cell)."""
        return features

    @abstractmethod
    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss of two summaries that fit and are at least float32; the teacher's has no gradient."""

    def _check(self, student: Tensor, teacher: Tensor) -> None:
        first = 1 if self.requires_same_channels else 2
        if student.ndim != 4 or teacher.ndim != 4 or _sizes(student, first) != _sizes(teacher, first):
            shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            what = "the same shape" if self.requires_same_channels else "the same batch size, height and width"
            raise InputError(
                f"{type(self).__name__}: features of student and teacher must have {what}, but are {shapes}",
                code=SHAPES_DIFFER,
            )


def check_choice(loss: str, option: str, value: object, known: Collection[str]) -> None:
    """Raise InputError unless the `option` of a loss is one of the `known` names."""
    if value not in known:
        raise InputError(f"{option} of {loss} is {value!r}; choose from {', '.join(known)}", code="loss.unknown-choice")


def upcast(tensor: Tensor) -> Tensor:
    """Half precision as float32; anything else as it is."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _sizes(features: Tensor, first: int) -> tuple[int, ...]:
    return (features.shape[0], *features.shape[first:])
