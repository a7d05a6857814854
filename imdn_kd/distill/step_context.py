"""What loss terms see of one iteration: a batch, the student's output and, on demand, the teachers'."""

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
    """One batch and what the networks make of it; each network runs on it at most once.

    Args:
        batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1]; perhaps cached maps of the teachers' features.
        student: from `lq` to an image like `gt`; perhaps wrapped, for mixed precision or several processes.
        info: of the student.
        hooks: of the student.
        teachers: run when a term needs them.
        cached: the teachers' output for `lq`, if it is cached.

    Attributes:
        student: the network itself, for other images.
        info: of the student.
        batch: all that it was made of.
        lq: LR images of the batch.
        gt: ground truth of the batch.
        sr: the student's output.
        student_features: the student's features by hook; `sr` among them.
    """

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        *,
        student: nn.Module,
        info: ModelInfo,
        hooks: FeatureHooks | None = None,
        teachers: Sequence[Teacher] = (),
        cached: Tensor | None = None,
    ) -> None:
        self.student, self.info, self._teachers, self._cached = student, info, teachers, cached
        self.batch, self.lq, self.gt = batch, batch["lq"], batch["gt"]
        with ExitStack() as stack:
            features = {} if hooks is None else stack.enter_context(hooks.recording())
            self.sr: Tensor = student(self.lq)
        self.student_features: dict[str, Tensor] = {**features, SR: self.sr}

    @cached_property
    def _teacher_runs(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return [teacher.forward_features(self.lq) for teacher in self._teachers]

    def teacher_features(self, number: int) -> Mapping[str, Tensor]:
        """Features of one of the teachers by hook; `sr`, its output, among them."""
        return self._teacher_runs[number][1]

    @cached_property
    def teacher_sr(self) -> Tensor:
        """The teachers' output, N x C x sH x sW: the mean by their weights."""
        if self._cached is not None:
            return self._cached
        return mean_of(self._teachers, [sr for sr, _ in self._teacher_runs])

    def quantise_like_cache(self, sr: Tensor) -> Tensor:
        """Quantise student outputs to 8 bits (straight-through) if teacher outputs come from a cache.

        Otherwise a critic could tell the two by their precision.
        """
        if self._cached is None:
            return sr
        return sr + (sr.clamp(0, 1).mul(255).round().div(255) - sr).detach()

    def teacher_output(self, lq: Tensor) -> Tensor:
        """The teachers' output for other images."""
        return mean_of(self._teachers, [teacher(lq) for teacher in self._teachers])

    @cached_property
    def enlarged(self) -> Tensor:
        """`lq` enlarged bicubically to the size of `gt`, in the memory format of `gt`, clamped to [0, 1].

        As by `functional.interpolate`, but as two matrix products, several times faster on CPUs.
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
        """Drop all features and the graph of the student's output, which frees memory; the outputs stay."""
        self.sr = self.sr.detach()
        self.student_features = {SR: self.sr}
        if "_teacher_runs" in vars(self):
            self.teacher_sr  # noqa: B018 - computed from what is dropped now
            del self._teacher_runs
        return self


@lru_cache(maxsize=16)
def _bicubic(length: int, enlarged: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix, enlarged x length, of bicubic interpolation along one side."""
    columns = torch.eye(length, dtype=dtype, device=device)[None, None]
    return functional.interpolate(columns, (enlarged, length), mode="bicubic", align_corners=False)[0, 0]
