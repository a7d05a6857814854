"""Data upcycling: distillation on inputs made from the batch, for which only a teacher has labels.

Both parts are of DUKD (Zhang et al., 2023, https://arxiv.org/abs/2309.14162). Zooming in and out makes inputs without
ground truth: the teacher's outputs T(x) are their labels. Label consistency gives the student an augmented input and
compares its output, with the augmentation undone, with the teacher's: undo(S(apply(x))) with T(x). All random numbers
come from PyTorch's global CPU generator.
"""

from __future__ import annotations

import math
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


def draw_augmentation(count: int, prob: float = 0.5) -> Augmentation:
    """Draw an augmentation for each of `count` images: each of the four kinds with probability `prob`, on its own."""
    kinds = torch.tensor([augment.HFLIP, augment.VFLIP, augment.TRANSPOSE, augment.INVERSION])
    return Augmentation(((torch.rand(count, 4) < prob) * kinds).sum(1))


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


def tiles(gt: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the ground truth into tiles without a rest, as inputs: all of its details.

    Args:
        gt: N x C x H x W, sides multiples of `size`.
        size: height and width of the tiles in px: those of the LR patches.

    Returns:
        N H W / (height width) x C x height x width, image after image, row by row.
    """
    (height, width), (rows, columns) = size, (gt.shape[2] // size[0], gt.shape[3] // size[1])
    parts = gt.reshape(*gt.shape[:2], rows, height, columns, width)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


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
        augment_prob: probability of each of the four augmentations that these are made of.
        zoom_in_prob: draw one kind of zoom in each iteration, `in` with this probability, at half the cost; by default
            both are computed, if both are asked for.
        tiles: zoom in on all tiles of the ground truth, as many as the square of the scale, not on one random crop.
        pixel_weight: weight of the loss between the student's output for a downscaled input and the input as it was,
            its ground truth where LR images are downscaled ones; 0 leaves it out.
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
        augment_prob: float = 0.5,
        zoom_in_prob: float | None = None,
        tiles: bool = False,
        pixel_weight: float = 0.0,
        loss: str = "L1Loss",
        weight: float | WeightSchedule = 1.0,
        name: str = "l_upcycling",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if not zoom or not set(zoom) <= {"in", "out"}:
            raise InputError(f"zoom of UpcyclingTerm is {zoom}; give [in], [out] or [in, out]", code=INVALID_OPTIONS)
        if not isinstance(consistency, bool):
            raise InputError(f"consistency of UpcyclingTerm is {consistency}; give true or false", code=INVALID_OPTIONS)
        for option, value in (("augment_prob", augment_prob), ("zoom_in_prob", zoom_in_prob)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{option} of UpcyclingTerm is {value}; give 0 to 1", code=INVALID_OPTIONS)
        if not 0 <= pixel_weight < math.inf:
            raise InputError(f"pixel_weight of UpcyclingTerm is {pixel_weight}; give 0 or more", code=INVALID_OPTIONS)
        for option, needs, given in (
            ("tiles", {"in"}, tiles),
            ("pixel_weight", {"out"}, pixel_weight),
            ("zoom_in_prob", {"in", "out"}, zoom_in_prob is not None),
        ):
            if given and not needs <= set(zoom):
                raise InputError(
                    f"{option} of UpcyclingTerm has no effect with zoom {zoom}; leave it out", code=INVALID_OPTIONS
                )
        self.zoom, self.consistency = tuple(zoom), consistency
        self.augment_prob, self.zoom_in_prob = augment_prob, zoom_in_prob
        self.tiles, self.pixel_weight = tiles, pixel_weight
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
        kinds = self.zoom
        if self.zoom_in_prob is not None:
            kinds = ("in",) if torch.rand(()).item() < self.zoom_in_prob else ("out",)
        return torch.stack([self._part(context, kind) for kind in kinds]).mean()

    def _zoomed(self, context: StepContext, kind: str) -> Tensor:
        if kind == "in":
            return (tiles if self.tiles else zoom_in)(context.gt, context.lq.shape[2:])
        info = context.info
        return zoom_out(context.lq, info.scale, min_size=info.min_size, size_multiple=info.size_multiple)

    def _part(self, context: StepContext, kind: str) -> Tensor:
        lq = self._zoomed(context, kind)
        if not self.consistency:
            sr = context.student(lq)
        else:
            augmentation = draw_augmentation(len(lq), self.augment_prob)
            sr = augmentation.undo(context.student(augmentation.apply(lq)))
        loss: Tensor = self.loss(sr, context.teacher_output(lq))
        if kind == "out" and self.pixel_weight:
            loss = loss + self.pixel_weight * self.loss(sr, context.lq[:, :, : sr.shape[2], : sr.shape[3]])
        return loss
