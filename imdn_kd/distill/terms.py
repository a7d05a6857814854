"""Objectives: what a student is to have in common with the originals and with its teachers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imdn_kd.distill.hooks import SR
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.weighting import Weight
from imdn_kd.errors import InputError


class Objective(nn.Module, ABC):
    """Something that is to become small. What it learns itself, such as adapters, are its parameters.

    Attributes:
        needs_online_teacher: whether it needs teacher outputs for other images than those of the batch, so that a cache
            is not enough.
        uses_result: whether it needs the result of the teachers.
    """

    needs_online_teacher = False
    uses_result = False

    @abstractmethod
    def forward(self, context: StepContext) -> Tensor:
        """Return a scalar, not weighted."""


class GroundTruthTerm(Objective):
    """The student's result is to be the original.

    Args:
        loss: of both, N x C x sH x sW.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, context: StepContext) -> Tensor:
        """As in `Objective`."""
        loss: Tensor = self.loss(context.sr, context.gt)
        return loss


class OutputTerm(Objective):
    """The student's result is to be the teacher's: pixel-wise distillation.

    Args:
        loss: of both, N x C x sH x sW.
    """

    uses_result = True

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, context: StepContext) -> Tensor:
        """As in `Objective`."""
        loss: Tensor = self.loss(context.sr, context.teacher_sr)
        return loss


class ContrastiveTerm(Objective):
    """The student's result is to be near the teacher's and far from the input.

    Args:
        loss: of the student's result, the teacher's, and the input enlarged bicubically.
    """

    uses_result = True

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, context: StepContext) -> Tensor:
        """As in `Objective`."""
        loss: Tensor = self.loss(context.sr, context.teacher_sr, context.enlarged)
        return loss


@dataclass(frozen=True)
class FeaturePair:
    """Two features that are compared.

    Attributes:
        student: tap of the student.
        teacher: tap of the teacher.
        weight: factor of their loss.
        adapter: number of channels of both where a 1x1 convolution goes from one to the other; None without it.
    """

    student: str
    teacher: str
    weight: float
    adapter: tuple[int, int] | None = None


class FeatureTerm(Objective):
    """Features of the student are to be like those of its teachers.

    Args:
        loss: of features of both.
        pairs: which ones; for each teacher. Results, `sr`, are compared with the mean of the teachers'.
        shares: parts of the teachers in the mean; they sum up to 1.
    """

    def __init__(self, loss: nn.Module, pairs: Sequence[Sequence[FeaturePair]], shares: Sequence[float]) -> None:
        super().__init__()
        self.loss, self.pairs, self._shares = loss, pairs, shares
        self.uses_result = any(pair.teacher == SR for several in pairs for pair in several)
        self.adapters = nn.ModuleDict(
            {
                f"{teacher}_{number}": nn.Conv2d(*pair.adapter, 1)
                for teacher, several in enumerate(pairs)
                for number, pair in enumerate(several)
                if pair.adapter is not None
            }
        )

    def forward(self, context: StepContext) -> Tensor:
        """As in `Objective`."""
        parts: list[Tensor] = []
        for teacher, (several, share) in enumerate(zip(self.pairs, self._shares, strict=True)):
            for number, pair in enumerate(several):
                mine = context.student_features[pair.student]
                key = f"{teacher}_{number}"
                if key in self.adapters:
                    mine = self.adapters[key](mine.float())
                # The result may be known without asking the teachers.
                result = pair.teacher == SR
                theirs = context.teacher_sr if result else context.teacher_features(teacher)[pair.teacher]
                try:
                    parts.append(share * pair.weight * self.loss(mine, theirs))
                except InputError as error:
                    raise InputError(f"{pair.student} and {pair.teacher}: {error}") from error
        return torch.stack(parts).sum()


@dataclass(frozen=True)
class Term:
    """One part of the loss.

    Attributes:
        name: under which it is logged, as `l_pix`.
        objective: what it is.
        weight: its factor, by update.
    """

    name: str
    objective: Objective
    weight: Weight
