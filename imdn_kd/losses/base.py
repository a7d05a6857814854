"""What losses between feature maps of a student and a teacher have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError


class FeatureLoss(nn.Module, ABC):
    """A loss between two batches of feature maps, or of images.

    All are means over the samples, so that the size of the batch does not change what they are worth; all are computed
    in float32 or better, whatever the precision of the maps and whether there is autocast; none has a gradient for the
    teacher.

    Attributes:
        same_width: whether student and teacher must have as many channels.
        adapts: whether a 1x1 convolution is to be learned for the student where they have not.
        compares_samples: whether samples are compared with each other, so that the loss depends on the batch.
    """

    same_width = False
    adapts = False
    compares_samples = False

    def __init__(self) -> None:
        super().__init__()

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32.

        Args:
            student: N x C x H x W, floating.
            teacher: N x D x H x W; D may differ from C unless `same_width` says otherwise.

        Raises:
            InputError: the shapes do not fit.
        """
        first = 1 if self.same_width else 2
        if student.ndim != 4 or teacher.ndim != 4 or _sizes(student, first) != _sizes(teacher, first):
            shapes = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            what = "be alike in shape" if self.same_width else "be alike in batch, height and width"
            raise InputError(f"{type(self).__name__}: features of student and teacher must {what}, but are {shapes}")
        with torch.autocast(student.device.type, enabled=False):
            return self.between(_widened(student), _widened(teacher.detach()))

    @abstractmethod
    def between(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of maps that fit and are at least float32; the teacher's have no gradient."""


def _sizes(features: Tensor, first: int) -> tuple[int, ...]:
    return (features.shape[0], *features.shape[first:])


def _widened(features: Tensor) -> Tensor:
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features
