"""Data upcycling: distillation on inputs made from the batch, for which only a teacher has labels.

Both parts are of DUKD (Zhang et al., 2023, https://arxiv.org/abs/2309.14162). Zooming in and out makes inputs without
ground truth: the teacher's outputs T(x) are their labels. Label consistency gives the student an augmented input and
compares its output, with the augmentation undone, with the teacher's: undo(S(apply(x))) with T(x). All random numbers
come from PyTorch's global CPU generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.data import augment
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import INVALID_OPTIONS, LossTerm, WeightSchedule
from imdn_kd.errors import InputError
from imdn_kd.losses.base import PixelLoss
from imdn_kd.registry import LOSS_TERMS, LOSSES


class Augmentation(NamedTuple):
    """What is done to each image of a batch, and can be undone on what a network makes of it.

    Attributes:
        transform_codes: N, int64, on the CPU: as in `imdn_kd.data.augment`, 0..15 for the flips, the transposition,
            and the negative.
    """

    transform_codes: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Return augmented images; gradients pass.

        Args:
            images: N x C x H x W, floating, 1 for white; square if a code transposes.

        Raises:
            InputError: the images do not fit the codes.
        """
        return augment.apply(images, self.transform_codes)

    def undo(self, images: Tensor) -> Tensor:
        """Return images, of any size, as they were before `apply`; gradients pass.

        Exactly so but for the negative: 1 - (1 - x) is within 2^-25 of x in [0, 1] in float32, and equal to x if x is
        a multiple of 2^-24. Half precision becomes float32: a dark value has digits that its negative has not.

        Args:
            images: N x C x H x W, floating, 1 for white; square if a code transposes.

        Raises:
            InputError: the images do not fit the codes.
        """
        half = images.dtype in (torch.float16, torch.bfloat16)
        return augment.undo(images.float() if half else images, self.transform_codes)


def draw_augmentation(count: int) -> Augmentation:
    """Draw one of the 16 augmentations for each of `count` images, all equally likely."""
    return Augmentation(torch.randint(augment.PERMUTATION, (count,)))


def zoom_in(gt: Tensor, size: Sequence[int]) -> Tensor:
    """Crop the ground truth at random: inputs that show less, with more detail.

    Args:
        gt: N x C x H x W.
        size: height and width of the crops in px: those of the LR patches.

    Returns:
        N x C x height x width, a copy.

    Raises:
        InputError: the ground truth is smaller than that.
    """
    height, width = size
    rows, columns = gt.shape[2] - height, gt.shape[3] - width
    if rows < 0 or columns < 0:
        sides = f"{gt.shape[3]}x{gt.shape[2]}"
        raise InputError(
            f"cannot crop {width}x{height} px from ground truth of {sides} px; give larger ones",
            code="distill.patches-too-small",
        )
    tops = torch.randint(rows + 1, (len(gt),)).tolist()
    lefts = torch.randint(columns + 1, (len(gt),)).tolist()
    parts = zip(gt, tops, lefts, strict=True)
    return torch.stack([image[:, top : top + height, left : left + width] for image, top, left in parts])


def zoom_out(lq: Tensor, scale: int, *, min_size: int = 1, size_multiple: int = 1) -> Tensor:
    """Downscale LR patches bicubically with antialiasing: inputs that show the same, smaller.

    Args:
        lq: N x C x H x W in [0, 1].
        scale: the factor, exactly: what is over at the right and at the bottom is cropped.
        min_size: smallest side in px that student and teacher take, at least 1.
        size_multiple: sides of the output are multiples of this.

    Returns:
        N x C x h x w in [0, 1]; the sides are those of `lq` divided by `scale`, rounded down to `size_multiple`.

    Raises:
        InputError: the patches are too small.
    """
    height, width = (side // (scale * size_multiple) * size_multiple for side in lq.shape[2:])
    if min(height, width) < min_size:
        sides = f"{lq.shape[3]}x{lq.shape[2]}"
        needed = -(-min_size // size_multiple) * size_multiple * scale
        raise InputError(
            f"cannot zoom out of patches of {sides} px by {scale}; give {needed} px a side or more",
            code="distill.patches-too-small",
        )
    whole = lq[:, :, : height * scale, : width * scale]
    return functional.interpolate(whole, (height, width), mode="bicubic", antialias=True).clamp(0, 1)


@LOSS_TERMS.register
class UpcyclingTerm(LossTerm):
    """Compares the outputs of student and teacher for zoomed and augmented inputs (DUKD).

    The teacher runs in every iteration: these inputs are made at random, so its outputs cannot be cached.

    Args:
        zoom: `in`, crops of the ground truth as inputs, `out`, downscaled inputs, or both; the loss is the mean.
        consistency: augment the student's inputs in one of 16 ways each, and undo it on the outputs.
        loss: name of a loss between images.

    Raises:
        InputError: something else.
    """

    needs_online_teacher = True

    def __init__(
        self,
        *,
        zoom: Sequence[str] = ("in", "out"),
        consistency: bool = True,
        loss: str = "L1Loss",
        weight: float | WeightSchedule = 1.0,
        name: str = "l_upcycling",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if not zoom or not set(zoom) <= {"in", "out"}:
            raise InputError(f"zoom of UpcyclingTerm is {zoom}; give [in], [out] or [in, out]", code=INVALID_OPTIONS)
        if not isinstance(consistency, bool):
            raise InputError(f"consistency of UpcyclingTerm is {consistency}; give true or false", code=INVALID_OPTIONS)
        self.zoom, self.consistency = tuple(zoom), consistency
        self.loss = LOSSES.build({"type": loss})
        if not isinstance(self.loss, PixelLoss):
            raise InputError(
                f"loss of UpcyclingTerm is {loss}; give one between images, as L1Loss", code=INVALID_OPTIONS
            )

    def forward(self, context: StepContext) -> Tensor:
        """See `LossTerm`.

        Raises:
            InputError: at scale 1, or for patches that are too small to be downscaled.
        """
        if context.info.scale == 1:
            raise InputError(
                "UpcyclingTerm needs a network that upscales; leave it out at scale 1", code="distill.scale-one"
            )
        parts = [self._part(context, self._zoomed(context, kind)) for kind in self.zoom]
        return torch.stack(parts).mean()

    def _zoomed(self, context: StepContext, kind: str) -> Tensor:
        if kind == "in":
            return zoom_in(context.gt, context.lq.shape[2:])
        info = context.info
        return zoom_out(context.lq, info.scale, min_size=info.min_size, size_multiple=info.size_multiple)

    def _part(self, context: StepContext, lq: Tensor) -> Tensor:
        if not self.consistency:
            sr = context.student(lq)
        else:
            augmentation = draw_augmentation(len(lq))
            sr = augmentation.undo(context.student(augmentation.apply(lq)))
        loss: Tensor = self.loss(sr, context.teacher_output(lq))
        return loss
