"""Contrastive loss: near the teacher's output, far from bicubic interpolation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, SHAPES_DIFFER, check_choice
from imdn_kd.losses.frequency import even_sided, twice_details, twice_details_transposed
from imdn_kd.registry import LOSSES

SPACES = ("pixels", "wavelet")

_CHUNK = 2**19
"""Values of an image batch that are processed at a time on CPUs, so that intermediates stay in the cache."""


@LOSSES.register
class ContrastiveLoss(nn.Module):
    """Contrastive distance ratio d(student, teacher) / (d(student, negative) + eps), the mean over the samples.

    After contrastive self-distillation (CSD; Wang et al., IJCAI 2021, https://arxiv.org/abs/2105.11683). There, d is
    the L1 distance of VGG features, the negatives are enlarged inputs of other samples of the batch, and the ratio is
    that of sums over the batch. Here, d is the mean absolute difference of the images, of their Haar details, or of
    features that the teacher makes of them (`ContrastiveTerm`); the negative is the sample's own input, enlarged
    bicubically, and, with `others`, those of other samples; each sample has its own ratio. The published gain is mostly
    that of a warm start and more iterations, so compare with a student that had these too.

    The loss is 0 where student and teacher are equal. Computed in float32 or better, without autocast; only the student
    has a gradient.

    Attributes:
        inputs: what the three arguments of `forward` are.
        compares_samples: whether the loss depends on which samples make up the batch.

    Args:
        space: `pixels`, or `wavelet`: the details of one level of `haar`, which leaves brightness and colour of flat
            parts alone.
        eps: positive, in units of the images, whose range is 0 to 1. Bounds the loss where the student is as good as
            the negative: there it is d(student, teacher) / eps. Distances well below it, as in patches of clear sky,
            weigh little; with the 1e-7 of contrastive losses in circulation, they would outweigh all others.
        others: how many other samples of the batch give negatives, too: those that follow a sample, as many as there
            are. The distance to negatives is the mean over all of them.

    Raises:
        InputError: another `space`, an `eps` that is not positive, or `others` below 0.
    """

    inputs = ("student", "teacher", "negative")

    def __init__(self, *, space: str = "pixels", eps: float = 1e-3, others: int = 0) -> None:
        super().__init__()
        check_choice("ContrastiveLoss", "space", space, SPACES)
        # Below, float32 would round it to 0, or to numbers that GPUs may take for 0.
        if not torch.finfo(torch.float32).tiny <= eps < math.inf:
            raise InputError(f"eps of ContrastiveLoss is {eps}; give a positive number, as 1e-3", code=OUT_OF_RANGE)
        if not isinstance(others, int) or isinstance(others, bool) or others < 0:
            raise InputError(
                f"others of ContrastiveLoss is {others!r}; give a whole number, 0 or more", code=OUT_OF_RANGE
            )
        self.space = space
        self.eps = eps
        self.others = others
        self.compares_samples = others > 0

    def forward(self, student: Tensor, teacher: Tensor, negative: Tensor) -> Tensor:
        """Return the loss, a scalar, at least float32.

        Args:
            student: N x C x H x W, the student's output, floating.
            teacher: that of the teacher, of the same shape.
            negative: the enlarged input, of the same shape.

        Raises:
            InputError: the shapes differ, or are not of four dimensions.
        """
        if student.ndim != 4 or not student.shape == teacher.shape == negative.shape:
            shapes = f"{tuple(student.shape)}, {tuple(teacher.shape)} and {tuple(negative.shape)}"
            raise InputError(
                f"ContrastiveLoss: images of student, teacher and negative must have the same shape, but are {shapes}",
                code=SHAPES_DIFFER,
            )
        dtype = torch.promote_types(student.dtype, torch.float32)
        with torch.autocast(student.device.type, enabled=False):
            student, teacher, negative = (image.to(dtype) for image in (student, teacher.detach(), negative.detach()))
            wavelet = self.space == "wavelet"
            if wavelet:
                student, teacher, negative = even_sided(student), even_sided(teacher), even_sided(negative)
            shifts = range(1 + min(self.others, max(len(student) - 1, 0)))
            negatives = tuple(negative.roll(-shift, 0) if shift else negative for shift in shifts)
            loss: Tensor = _MeanRatio.apply(student, teacher, negatives, self.eps, wavelet)
            return loss


class _MeanRatio(torch.autograd.Function):
    """Mean over the samples of near / (mean far + eps), with the student's gradient in closed form, computed with it.

    Each distance is a mean of |L (student - other)| with a linear map L, so its gradient is L^T sign(L (student -
    other)), and one L^T serves both distances. Autograd alone takes nearly twice as long.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        student: Tensor,
        teacher: Tensor,
        negatives: tuple[Tensor, ...],
        eps: float,
        wavelet: bool,
    ) -> Tensor:
        samples, numbers = len(student), math.prod(student.shape[1:])
        # Details are 3 for each block of 4 pixels, and given twice.
        scale = numbers * 3 / 4 * 2 if wavelet else numbers
        gradient = torch.empty_like(student)
        size = max(1, _CHUNK // numbers) if student.device.type == "cpu" else samples
        chunks = (torch.split(images, size) for images in (student, teacher, gradient, *negatives))
        ratios = []
        for ours, theirs, slope, *far_images in zip(*chunks, strict=True):
            to_teacher = twice_details(ours - theirs) if wavelet else ours - theirs
            axes = tuple(range(1, to_teacher.ndim))
            total, away = ours.new_zeros(()), torch.zeros_like(to_teacher)
            for image in far_images:
                to_negative = twice_details(ours - image) if wavelet else ours - image
                total = total + to_negative.abs().sum(axes, keepdim=True)
                away += to_negative.sign_()
            far = total / (scale * len(negatives)) + eps
            ratio = to_teacher.abs().sum(axes, keepdim=True) / scale / far
            weight = 1 / (samples * scale * far)
            to_teacher.sign_().mul_(weight).addcmul_(away, ratio * weight / len(negatives), value=-1)
            if wavelet:
                twice_details_transposed(to_teacher, out=slope)
            else:
                slope.copy_(to_teacher)
            ratios.append(ratio.flatten())
        ctx.save_for_backward(gradient)
        return torch.cat(ratios).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None, None, None
