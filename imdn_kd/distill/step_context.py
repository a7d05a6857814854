"""What objectives look at: one batch, what the student makes of it, and, where it is asked for, the teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.distill.teacher import Teacher, mean_of


class StepContext:
    """One batch and what networks make of it; each of them runs on it once at most.

    Args:
        batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1].
        student: from `lq` to the like of `gt`; perhaps wrapped, for mixed precision or several processes.
        info: of the student.
        taps: of the student.
        teachers: asked when an objective needs them.
        cached: what the teachers have made of `lq`, if it is known.

    Attributes:
        student: the network itself, for other images.
        info: of the student.
        lq: of the batch.
        gt: of the batch.
        sr: the student's result.
        student_features: the student's features by tap; `sr` among them.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        *,
        student: nn.Module,
        info: ModelInfo,
        taps: FeatureHooks | None = None,
        teachers: Sequence[Teacher] = (),
        cached: Tensor | None = None,
    ) -> None:
        self.student, self.info, self._teachers, self._cached = student, info, teachers, cached
        self.lq, self.gt = batch["lq"], batch["gt"]
        with ExitStack() as stack:
            features = {} if taps is None else stack.enter_context(taps.recording())
            self.sr: Tensor = student(self.lq)
        self.student_features: dict[str, Tensor] = {**features, SR: self.sr}

    @cached_property
    def _teacher_runs(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return [teacher.forward_features(self.lq) for teacher in self._teachers]

    def teacher_features(self, number: int) -> Mapping[str, Tensor]:
        """Features of one of the teachers by tap; `sr`, its result, among them."""
        return self._teacher_runs[number][1]

    @cached_property
    def teacher_sr(self) -> Tensor:
        """The result of the teachers, N x C x sH x sW."""
        if self._cached is not None:
            return self._cached
        return mean_of(self._teachers, [sr for sr, _ in self._teacher_runs])

    def quantise_like_cache(self, sr: Tensor) -> Tensor:
        """A result of the student in the form in which the teachers' are known, for who could tell by this.

        Those that were computed before are of 8 bit: then it is rounded and clamped, with the gradient of what it was.
        """
        if self._cached is None:
            return sr
        return sr + (sr.clamp(0, 1).mul(255).round().div(255) - sr).detach()

    def teacher_output(self, lq: Tensor) -> Tensor:
        """What the teachers make of other images."""
        return mean_of(self._teachers, [teacher(lq) for teacher in self._teachers])

    @cached_property
    def enlarged(self) -> Tensor:
        """`lq` at the size of `gt` and in its memory format, by bicubic interpolation, in [0, 1].

        As by `functional.interpolate`, but as two products with matrices, several times faster on CPUs.
        """
        last = self.gt.is_contiguous(memory_format=torch.channels_last)
        (height, width), (high, wide) = self.lq.shape[2:], self.gt.shape[2:]
        with torch.no_grad(), torch.autocast(self.lq.device.type, enabled=False):
            rows = _bicubic(height, high, self.lq.dtype, self.lq.device)
            columns = _bicubic(width, wide, self.lq.dtype, self.lq.device)
            widened = (self.lq @ columns.mT).permute(0, 2, 3, 1)
            enlarged = (rows @ widened.flatten(2)).clamp_(0, 1).view(-1, high, *widened.shape[2:]).permute(0, 3, 1, 2)
            return enlarged.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)

    def release_graph(self) -> StepContext:
        """Forget all features, and how the student's result came about, which frees memory; the results stay."""
        self.sr = self.sr.detach()
        self.student_features = {SR: self.sr}
        if "_teacher_runs" in vars(self):
            self.teacher_sr  # noqa: B018 - computed from what is forgotten now
            del self._teacher_runs
        return self


@lru_cache(maxsize=16)
def _bicubic(length: int, enlarged: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, enlarged x length, of bicubic interpolation along one side."""
    columns = torch.eye(length, dtype=dtype, device=device)[None, None]
    return functional.interpolate(columns, (enlarged, length), mode="bicubic", align_corners=False)[0, 0]
