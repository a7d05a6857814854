"""A loss that draws the student to the teacher and away from what any interpolation gives."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.losses.bands import haar
from imdn_kd.registry import LOSSES

SPACES = ("pixels", "wavelet")


@LOSSES.register
class ContrastiveLoss(nn.Module):
    """Contrastive distance ratio d(student, teacher) / (d(student, negative) + eps), the mean over the samples.

    After contrastive self-distillation (CSD; Wang et al., IJCAI 2021). There, d is the L1 distance of features of a VGG
    network that was trained on ImageNet, the negatives are enlarged inputs of other samples of the batch, and the ratio
    is that of sums over the batch. Here, no further network is needed: d is the mean absolute difference of the images
    or of their Haar details, the negative is the sample's own input, enlarged by bicubic interpolation, and each sample
    has its own ratio. The published gain is mostly that of a warm start and more updates, so compare with a student
    that had these too.

    The loss is 0 where student and teacher are equal. Computed in float32 or better, without autocast; only the student
    has a gradient.

    Attributes:
        inputs: what the three arguments of `forward` are.

    Args:
        space: `pixels`, or `wavelet`: the details of one level of `haar`, which leaves brightness and colour of flat
            parts alone.
        eps: positive, in units of the images, whose range is 0 to 1. Bounds the loss where the student is as good as
            the negative: there it is d(student, teacher) / eps. Distances well below it, as in patches of clear sky,
            weigh little; with the 1e-7 of contrastive losses in circulation, they would outweigh all others.

    Raises:
        InputError: another `space`, or an `eps` that is not positive.
    """

    inputs = ("student", "teacher", "negative")

    def __init__(self, *, space: str = "pixels", eps: float = 1e-3) -> None:
        super().__init__()
        if space not in SPACES:
            raise InputError(f"space of ContrastiveLoss is {space!r}; choose from {', '.join(SPACES)}")
        # Below, float32 would round it to 0, or to numbers that GPUs may take for 0.
        if not torch.finfo(torch.float32).tiny <= eps < math.inf:
            raise InputError(f"eps of ContrastiveLoss is {eps}; give a positive number, as 1e-3")
        self.space = space
        self.eps = eps

    def forward(self, student: Tensor, teacher: Tensor, negative: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32.

        Args:
            student: N x C x H x W, the result of the student, floating.
            teacher: that of the teacher, of the same shape.
            negative: the enlarged input, of the same shape.

        Raises:
            InputError: the shapes differ, or are not of four dimensions.
        """
        if student.ndim != 4 or not student.shape == teacher.shape == negative.shape:
            shapes = f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(negative.shape)}"
            raise InputError(
                f"ContrastiveLoss: images of student, teacher and negative must be alike in shape, but are {shapes}"
            )
        dtype = torch.promote_types(student.dtype, torch.float32)
        with torch.autocast(student.device.type, enabled=False):
            student, teacher, negative = (image.to(dtype) for image in (student, teacher.detach(), negative.detach()))
            near, far = self._distance(student, teacher), self._distance(student, negative)
            return (near / (far + self.eps)).mean()

    def _distance(self, one: Tensor, other: Tensor) -> Tensor:
        difference = one - other
        if self.space == "wavelet":
            difference = haar(difference)[1]
        return difference.abs().flatten(1).mean(1)
