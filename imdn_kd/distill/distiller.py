"""A student, its teachers and its objectives: batches in, named losses out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.distill.holistic import Holistic
from imdn_kd.distill.hooks import FeatureHooks
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import FeatureTerm, Term

STUDENT, ADAPTERS, CRITIC = "student", "adapters", "critic"
"""Who learns."""


@dataclass(frozen=True)
class OptimStep:
    """One optimizer step within an iteration, over all its batches.

    Attributes:
        trains: names of the modules whose optimizers step.
        losses: from what was made of a batch to their weighted losses, by name; the sum is what is to fall.
    """

    trains: tuple[str, ...]
    losses: Callable[[StepContext], dict[str, Tensor]]


@dataclass
class Lesson:
    """What a student is to learn, and from whom.

    Attributes:
        terms: of its loss, one or more.
        teachers: none if no term needs them.
        plane: plane of the batches that has the teachers' results; None where they are asked.
        taps: of the student, which has been probed.
    """

    terms: Sequence[Term]
    teachers: Sequence[Teacher] = ()
    plane: str | None = None
    taps: FeatureHooks | None = None

    def trainable_modules(self) -> dict[str, nn.Module]:
        """What learns beside the student, by name."""
        found: dict[str, nn.Module] = {}
        # With a prefix, since names such as `keys` are taken in a ModuleDict.
        adapters = {
            f"of_{term.name}": term.objective.adapters
            for term in self.terms
            if isinstance(term.objective, FeatureTerm) and len(term.objective.adapters)
        }
        if adapters:
            found[ADAPTERS] = nn.ModuleDict(adapters)
        for term in self.terms:
            if isinstance(term.objective, Holistic):
                found[CRITIC] = term.objective.critic
        return found

    def to(self, device: torch.device) -> Lesson:
        """Move everything to a device, but for teachers that are not asked, which go to the CPU."""
        for term in self.terms:
            term.objective.to(device)
        for teacher in self.teachers:
            teacher.to(device if self.teacher_required else "cpu")
        return self

    @property
    def teacher_required(self) -> bool:
        """Whether teachers run during training: not if their results are known and enough."""
        asked = any(term.objective.needs_online_teacher for term in self.terms)
        asked = asked or any(teacher.taps for teacher in self.teachers)
        return bool(self.teachers) and (self.plane is None or asked)


class Distiller:
    """Computes the losses of a student, and of what learns with it or against it.

    Args:
        student: from N x C x H x W to N x C x sH x sW; perhaps wrapped, for mixed precision or several processes.
        lesson: on the student's device.
        network: the student without wrapping.
    """

    def __init__(self, student: nn.Module, lesson: Lesson, network: SRNetwork) -> None:
        self.student, self.lesson = student, lesson
        self._info = network.info

    def run_student(self, batch: Mapping[str, Tensor]) -> StepContext:
        """Run the student on a batch.

        Args:
            batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1]; the plane of the teachers' results, if
                there is one, is like `gt`.
        """
        lesson = self.lesson
        cached = None if lesson.plane is None else batch[lesson.plane]
        return StepContext(
            batch, student=self.student, info=self._info, taps=lesson.taps, teachers=lesson.teachers, cached=cached
        )

    def losses(self, context: StepContext, step: int) -> dict[str, Tensor]:
        """Return the student's weighted losses by name; those whose weight is 0 now are left out.

        Args:
            context: a batch.
            step: updates done.
        """
        weights = {term.name: term.weight(step) for term in self.lesson.terms}
        return {
            term.name: weights[term.name] * term.objective(context) for term in self.lesson.terms if weights[term.name]
        }

    def optim_steps(self, step: int) -> list[OptimStep]:
        """Who learns in an update, one after the other: the student first, from whose results its critics learn then.

        Args:
            step: updates done.
        """
        also = tuple(name for name in self.lesson.trainable_modules() if name == ADAPTERS)
        optim_steps = [OptimStep((STUDENT, *also), lambda context: self.losses(context, step))]
        for term in self.lesson.terms:
            if isinstance(term.objective, Holistic) and term.weight(step):
                optim_steps += [OptimStep((CRITIC,), term.objective.critic_losses)] * term.objective.n_critic
        return optim_steps
