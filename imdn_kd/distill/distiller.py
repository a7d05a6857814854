"""A student, its teachers and its objectives: batches in, named losses out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.distill.holistic import Holistic
from imdn_kd.distill.hooks import Taps
from imdn_kd.distill.step_context import Scene
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import Likeness, Term

STUDENT, ADAPTERS, CRITIC = "student", "adapters", "critic"
"""Who learns."""


@dataclass(frozen=True)
class Turn:
    """A part of an update, in which some of those that learn take a step, on all its batches.

    Attributes:
        learners: who.
        losses: from what was made of a batch to their weighted losses, by name; the sum is what is to fall.
    """

    learners: tuple[str, ...]
    losses: Callable[[Scene], dict[str, Tensor]]


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
    taps: Taps | None = None

    def learners(self) -> dict[str, nn.Module]:
        """What learns beside the student, by name."""
        found: dict[str, nn.Module] = {}
        # With a prefix, since names such as `keys` are taken in a ModuleDict.
        adapters = {
            f"of_{term.name}": term.objective.adapters
            for term in self.terms
            if isinstance(term.objective, Likeness) and len(term.objective.adapters)
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
            teacher.to(device if self.asks_teachers else "cpu")
        return self

    @property
    def asks_teachers(self) -> bool:
        """Whether teachers run during training: not if their results are known and enough."""
        asked = any(term.objective.live for term in self.terms) or any(teacher.taps for teacher in self.teachers)
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

    def look(self, batch: Mapping[str, Tensor]) -> Scene:
        """Run the student on a batch.

        Args:
            batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1]; the plane of the teachers' results, if
                there is one, is like `gt`.
        """
        lesson = self.lesson
        cached = None if lesson.plane is None else batch[lesson.plane]
        return Scene(
            batch, student=self.student, info=self._info, taps=lesson.taps, teachers=lesson.teachers, cached=cached
        )

    def losses(self, scene: Scene, step: int) -> dict[str, Tensor]:
        """Return the student's weighted losses by name; those whose weight is 0 now are left out.

        Args:
            scene: a batch.
            step: updates done.
        """
        weights = {term.name: term.weight(step) for term in self.lesson.terms}
        return {
            term.name: weights[term.name] * term.objective(scene) for term in self.lesson.terms if weights[term.name]
        }

    def turns(self, step: int) -> list[Turn]:
        """Who learns in an update, one after the other: the student first, from whose results its critics learn then.

        Args:
            step: updates done.
        """
        also = tuple(name for name in self.lesson.learners() if name == ADAPTERS)
        turns = [Turn((STUDENT, *also), lambda scene: self.losses(scene, step))]
        for term in self.lesson.terms:
            if isinstance(term.objective, Holistic) and term.weight(step):
                turns += [Turn((CRITIC,), term.objective.critic_losses)] * term.objective.n_critic
        return turns
