"""Distillation on inputs that are made of the batch, for which there are no originals but a teacher."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import Objective
from imdn_kd.distill.upcycling import draw_augmentation, zoom_in, zoom_out
from imdn_kd.errors import InputError
from imdn_kd.losses.base import PixelLoss
from imdn_kd.registry import LOSSES, OBJECTIVES


@OBJECTIVES.register
class Upcycling(Objective):
    """Zooming in and out, with label consistency: DUKD (Zhang et al.).

    The student's results for other inputs are to be the teacher's, which therefore has to be asked in every update.

    Args:
        zoom: `in`, parts of the originals as inputs, `out`, shrunk inputs, or both; the loss is the mean.
        consistency: show the student these inputs in one of 16 augmentations each, and undo it in the results.
        loss: name of a loss between images.

    Raises:
        InputError: something else.
    """

    needs_online_teacher = True

    def __init__(self, *, zoom: Sequence[str] = ("in", "out"), consistency: bool = True, loss: str = "L1Loss") -> None:
        super().__init__()
        if not zoom or not set(zoom) <= {"in", "out"}:
            raise InputError(f"zoom of Upcycling is {zoom}; give [in], [out] or [in, out]")
        if not isinstance(consistency, bool):
            raise InputError(f"consistency of Upcycling is {consistency}; give true or false")
        self.zoom, self.consistency = tuple(zoom), consistency
        self.loss = LOSSES.build({"type": loss})
        if not isinstance(self.loss, PixelLoss):
            raise InputError(f"loss of Upcycling is {loss}; give one between images, as L1Loss")

    def forward(self, context: StepContext) -> Tensor:
        """As in `Objective`.

        Raises:
            InputError: at scale 1, or for patches that are too small to be shrunk.
        """
        if context.info.scale == 1:
            raise InputError("Upcycling needs a network that enlarges; leave it out at scale 1")
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
