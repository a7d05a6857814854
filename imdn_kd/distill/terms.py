"""Loss terms: what a student is compared with, and how much each comparison weighs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imdn_kd.distill.cached_maps import CachedMap, against, cached_map
from imdn_kd.distill.feature_names import resolve
from imdn_kd.distill.feature_pairs import FeaturePair, pool_to_smaller
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.teacher import Teacher
from imdn_kd.errors import InputError
from imdn_kd.losses.base import upcast

WeightSchedule = Callable[[int], float]
"""From the iterations done, 0 before the first, to the weight in the next one."""

INVALID_OPTIONS = "distill.invalid-options"
"""Code of the error about options that a loss term cannot use."""


def weight_schedule(
    weight: float, *, total: int, start: int = 0, stop: int | None = None, ramp: int = 0, decay: int = 0
) -> WeightSchedule:
    """Make a schedule that ramps up linearly, holds and decays linearly; 0 before and after.

    Args:
        weight: the value that is held.
        total: iterations of the training.
        start: the first iteration with a weight, from 0.
        stop: the first iteration without one again (default: `total`).
        ramp: iteration `start` + i has (i + 1) / (`ramp` + 1) of the weight, up to all of it.
        decay: likewise before `stop`.
    """
    end = total if stop is None else stop

    def at(iteration: int) -> float:
        if not start <= iteration < end:
            return 0.0
        ramped = (iteration - start + 1) / (ramp + 1)
        decayed = (end - iteration) / (decay + 1)
        return weight * min(1.0, ramped, decayed)

    return at


class LossTerm(nn.Module, ABC):
    """A differentiable loss term.

    Args:
        weight: its factor in the sum, constant or by iteration.
        name: the key of its loss; by default `l_` and what it compares.

    Attributes:
        needs_online_teacher: whether it needs more of the teachers than their output for the batch, so that a cache of
            that is not enough.
        uses_teacher_output: whether it needs their output for the batch.
    """

    needs_online_teacher = False
    uses_teacher_output = False

    def __init__(self, *, weight: float | WeightSchedule = 1.0, name: str = "l_term") -> None:
        super().__init__()
        self.weight, self.name = weight, name

    @property
    def uses_teacher(self) -> bool:
        """Whether it needs a teacher."""
        return self.needs_online_teacher or self.uses_teacher_output

    def weight_at(self, iteration: int) -> float:
        """The weight after so many iterations."""
        return self.weight(iteration) if callable(self.weight) else self.weight

    @abstractmethod
    def forward(self, context: StepContext) -> Tensor:
        """Return the loss, a scalar, without its weight."""


class OutputTerm(LossTerm):
    """Compares the student's output with the ground truth or with the teachers' output.

    The latter is the pixel-wise distillation of structured knowledge distillation (Liu et al., CVPR 2019,
    https://arxiv.org/abs/1903.04197).

    Args:
        loss: of two batches N x C x sH x sW: one of `imdn_kd.losses`, or any module.
        target: `gt`, the ground truth, or `teacher`.
        weight: see `LossTerm`.
        name: by default `l_gt` or `l_teacher`.

    Raises:
        InputError: another target.
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        target: Literal["gt", "teacher"] = "gt",
        weight: float | WeightSchedule = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(weight=weight, name=name or f"l_{target}")
        if target not in ("gt", "teacher"):
            raise InputError(f"target of OutputTerm is {target!r}; choose from gt, teacher", code=INVALID_OPTIONS)
        self.loss, self.uses_teacher_output = loss, target == "teacher"

    def forward(self, context: StepContext) -> Tensor:
        """See `LossTerm`."""
        loss: Tensor = self.loss(context.sr, context.teacher_sr if self.uses_teacher_output else context.gt)
        return loss


class ContrastiveTerm(LossTerm):
    """Draws the student's output to the teachers' and away from bicubic interpolation of the input.

    With `at`, features that a teacher has of these three images are compared, as those of VGG are in perceptual losses;
    the teacher runs, up to the last of them, with the outputs as its inputs.

    Args:
        loss: of the student's output, the teachers', and the input enlarged bicubically: `ContrastiveLoss`.
        at: names of features of the teachers; the loss is the mean over them. By default the images themselves.
        weight: see `LossTerm`.
        name: by default `l_contrastive`.
    """

    uses_teacher_output = True

    def __init__(
        self,
        loss: nn.Module,
        *,
        at: Sequence[str] = (),
        weight: float | WeightSchedule = 1.0,
        name: str = "l_contrastive",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if not all(isinstance(each, str) for each in at):
            raise InputError(f"{name}: at is {at!r}; give names of features of the teacher", code=INVALID_OPTIONS)
        self.loss, self.at = loss, tuple(at)
        self.needs_online_teacher = bool(at)
        self._spaces: tuple[tuple[Teacher, FeatureHooks, float], ...] = ()

    def bind(self, teachers: Sequence[Teacher], image: Tensor) -> None:
        """Set hooks on the features, and probe them.

        Args:
            teachers: their part in the mean is that of their weight.
            image: 1 x C x H x W, as teachers take it.

        Raises:
            InputError: a teacher has no such feature.
        """
        if not self.at:
            return
        total, spaces = sum(teacher.weight for teacher in teachers), []
        for teacher in teachers:
            hooks = FeatureHooks(teacher.network, [resolve(teacher.network, name) for name in self.at])
            hooks.probe(teacher.normalize_input(image))
            spaces.append((teacher, hooks, teacher.weight / total))
        self._spaces = tuple(spaces)

    def forward(self, context: StepContext) -> Tensor:
        """See `LossTerm`."""
        if not self.at:
            loss: Tensor = self.loss(context.sr, context.teacher_sr, context.enlarged)
            return loss
        parts = []
        for teacher, hooks, share in self._spaces:
            ours = teacher.embed(context.sr, hooks)
            with torch.no_grad():
                theirs, negatives = (teacher.embed(each, hooks) for each in (context.teacher_sr, context.enlarged))
            losses = [self.loss(ours[name], theirs[name], negatives[name]) for name in ours]
            parts.append(share * torch.stack(losses).mean())
        return torch.stack(parts).sum()


class FeatureTerm(LossTerm):
    """Compares features of the student with those of each of its teachers.

    Features that differ in height or width are averaged over areas to the smaller size.

    Args:
        loss: of two feature maps: one of `imdn_kd.losses`, or any module.
        at: names of features, see `imdn_kd.distill.feature_names` and `FeatureHooks`; a mapping `{STUDENT: TEACHER}` of
            one entry where they differ. By default the outputs, `sr`; these are compared with the mean of the teachers.
        at_weights: factors of these, one for each (default: 1 / their number).
        weight: see `LossTerm`.
        name: by default `l_feature`.

    Attributes:
        pairs: what is compared, for each teacher; `Distiller` resolves the names.
        cached: keys of the batch that hold cached maps, by the number of the teacher and that of the pair.
        adapters: trained with the student, and no part of it: here 1x1 convolutions from its width to a teacher's,
            where the loss needs them.

    Raises:
        InputError: names or weights that cannot be used.
    """

    def __init__(
        self,
        loss: nn.Module,
        *,
        at: Sequence[str | Mapping[str, str]] = (SR,),
        at_weights: Sequence[float] | None = None,
        weight: float | WeightSchedule = 1.0,
        name: str = "l_feature",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if isinstance(at, str) or not at or any(isinstance(each, Mapping) and len(each) != 1 for each in at):
            raise InputError(
                f"{name}: at is {at!r}; give a list of names, or of STUDENT: TEACHER, one pair each",
                code=INVALID_OPTIONS,
            )
        self.loss, self.at, self.at_weights = loss, at, at_weights
        self.pairs: Sequence[Sequence[FeaturePair]] = ()
        self.cached: Mapping[tuple[int, int], str] = {}
        self._shares: Sequence[float] = ()
        self.adapters = nn.ModuleDict()

    def bind(self, pairs: Sequence[Sequence[FeaturePair]], shares: Sequence[float]) -> None:
        """Set what is compared, and make the adapters.

        Args:
            pairs: for each teacher.
            shares: of the teachers in the mean; they sum up to 1.
        """
        self.pairs, self._shares = pairs, shares
        self.uses_teacher_output = any(pair.teacher == SR for several in pairs for pair in several)
        self.use_cached({})
        made = {
            f"{teacher}_{number}": self.make_adapter(pair.widths)
            for teacher, several in enumerate(pairs)
            for number, pair in enumerate(several)
        }
        self.adapters = nn.ModuleDict({key: adapter for key, adapter in made.items() if adapter is not None})

    def make_adapter(self, widths: tuple[int, int]) -> nn.Module | None:
        """Make what the student's features go through; None for nothing.

        Args:
            widths: channels of the student's feature and of the teacher's.
        """
        adapts = widths[0] != widths[1] and getattr(self.loss, "adapts", False)
        return nn.Conv2d(*widths, 1) if adapts else None

    def maps(self, size: tuple[int, ...]) -> dict[tuple[int, int], CachedMap | None]:
        """What could be cached in place of features; None for pairs whose features are no maps that could be.

        Args:
            size: height and width of the input, px, that features were probed with.

        Returns:
            By the number of the teacher and that of the pair; outputs, `sr`, are not among them.
        """
        return {
            (teacher, number): None if pair.pooled else cached_map(self.loss, teacher, pair.teacher, pair.shape, size)
            for teacher, several in enumerate(self.pairs)
            for number, pair in enumerate(several)
            if pair.teacher != SR
        }

    def use_cached(self, keys: Mapping[tuple[int, int], str]) -> None:
        """Compare with cached maps where a batch has them.

        Args:
            keys: of the batch, by the number of the teacher and that of the pair.
        """
        self.cached = keys
        self.needs_online_teacher = any(
            pair.teacher != SR and (teacher, number) not in keys
            for teacher, several in enumerate(self.pairs)
            for number, pair in enumerate(several)
        )

    def forward(self, context: StepContext) -> Tensor:
        """See `LossTerm`."""
        parts: list[Tensor] = []
        for teacher, (several, share) in enumerate(zip(self.pairs, self._shares, strict=True)):
            for number, pair in enumerate(several):
                try:
                    parts.append(share * pair.weight * self.compare(context, teacher, number, pair))
                except InputError as error:
                    raise InputError(f"{pair.student} and {pair.teacher}: {error}", code=error.code) from error
        return torch.stack(parts).sum()

    def compare(self, context: StepContext, teacher: int, number: int, pair: FeaturePair) -> Tensor:
        """Return the loss of one pair of features."""
        summary = context.batch.get(self.cached.get((teacher, number), ""))
        if summary is not None:
            mine = context.student_features[pair.student]
            return against(self.loss, self.adapted(mine, teacher, number), summary)
        mine, theirs = self.features(context, teacher, number, pair)
        loss: Tensor = self.loss(self.adapted(mine, teacher, number), theirs)
        return loss

    def features(self, context: StepContext, teacher: int, number: int, pair: FeaturePair) -> tuple[Tensor, Tensor]:
        """Both features of a pair, pooled to one size; the teacher's may be cached, if the loss compares all of it."""
        mine = context.student_features[pair.student]
        cached = context.batch.get(self.cached.get((teacher, number), ""))
        if cached is not None:
            return mine, upcast(cached)
        # The output may be in the cache.
        output = pair.teacher == SR
        theirs = context.teacher_sr if output else context.teacher_features(teacher)[pair.teacher]
        return pool_to_smaller(mine, theirs)

    def adapted(self, mine: Tensor, teacher: int, number: int) -> Any:  # noqa: ANN401 - whatever the adapter gives
        """The student's feature as its adapter gives it; as it is without one."""
        key = f"{teacher}_{number}"
        return self.adapters[key](mine.float()) if key in self.adapters else mine
