"""One update: everyone that learns takes a step, in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from imdn_kd.data.patches import Batch
from imdn_kd.distill.distiller import STUDENT, Distiller, Turn
from imdn_kd.distill.step_context import Scene
from imdn_kd.training.optim import Learner


@dataclass
class Update:
    """What has come of an update.

    Attributes:
        losses: means over the batches, by name.
        norms: of the gradient of each of the student's losses in the last batch, by name, if these were asked for.
        taken: who took a step.
        failed: who took none, since their gradients were not finite; those whose turn comes later took none either.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class Updater:
    """Makes updates.

    Args:
        distiller: says whose turn it is, and what their losses are.
        learners: by name.
        accelerator: precision and processes.
        seed: of the training.
        grad_clip: largest norm of the student's gradient; None is no limit.
    """

    def __init__(
        self,
        distiller: Distiller,
        learners: Mapping[str, Learner],
        accelerator: Accelerator,
        *,
        seed: int,
        grad_clip: float | None = None,
    ) -> None:
        self._distiller, self._learners, self._accelerator = distiller, learners, accelerator
        self._seed, self._grad_clip = seed, grad_clip

    def make(self, batches: Sequence[Batch], step: int, *, norms: bool = False) -> Update:
        """Make one update.

        Args:
            batches: one or more, whose gradients are averaged.
            step: updates done.
            norms: whether the norms of the gradients of single losses are wanted.
        """
        # Whatever is drawn inside networks and objectives depends on the update alone, as the patches do.
        torch.manual_seed(_seed_of(self._seed, step, self._accelerator.process_index))
        for learner in self._learners.values():
            learner.set_rate(step)
        update, scenes = Update(), list[Scene]()
        for turn in self._distiller.turns(step):
            for name in turn.learners:
                # Now, since the gradients of an update that fails are looked at.
                self._learners[name].optimizer.zero_grad()
            if STUDENT in turn.learners:
                scenes = self._student(turn, batches, update, norms=norms)
            else:
                for scene in scenes:
                    self._add(update, self._backward(turn, scene, len(batches)))
            if not self._step(turn):
                update.failed = turn.learners
                break
            update.taken += turn.learners
        return update

    def _student(self, turn: Turn, batches: Sequence[Batch], update: Update, *, norms: bool) -> list[Scene]:
        """The student's losses and their gradients; returns what it has made of the batches, for the turns after it."""
        scenes = []
        for number, batch in enumerate(batches, 1):
            # Processes need not exchange gradients before they are complete.
            alone = number < len(batches)
            with self._accelerator.no_sync(self._distiller.student) if alone else nullcontext():
                scene = self._distiller.look(batch)
                parts = self._backward(turn, scene, len(batches), norms_for=update if norms and not alone else None)
            self._add(update, parts)
            scenes.append(scene.let_go())
        return scenes

    def _backward(
        self, turn: Turn, scene: Scene, batches: int, norms_for: Update | None = None
    ) -> Mapping[str, Tensor]:
        parts = {name: loss / batches for name, loss in turn.losses(scene).items()}
        if norms_for is not None and len(parts) > 1:
            norms = norms_of_gradients(parts, self._learners[STUDENT].module)
            norms_for.norms = {name: norm * batches for name, norm in norms.items()}
        total = torch.stack(list(parts.values())).sum()
        if STUDENT in turn.learners and self._accelerator.num_processes > 1:
            # Those whose gradients are exchanged must all have one, also where only features are compared.
            total = total + 0 * scene.sr.sum()
        self._accelerator.backward(total)
        return parts

    def _add(self, update: Update, parts: Mapping[str, Tensor]) -> None:
        for name, part in parts.items():
            update.losses[name] = update.losses.get(name, 0) + part.detach()

    def _step(self, turn: Turn) -> bool:
        """Let the learners of a turn take their steps; False if none is taken, since gradients are not finite."""
        learners = [self._learners[name] for name in turn.learners]
        gradients = [gradient for learner in learners for gradient in learner.gradients()]
        finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if finite:
            if self._grad_clip is not None and STUDENT in turn.learners:
                torch.nn.utils.clip_grad_norm_(self._learners[STUDENT].module.parameters(), self._grad_clip)
            for learner in learners:
                learner.take_step()
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.update()
        return finite


def norms_of_gradients(losses: Mapping[str, Tensor], module: nn.Module) -> dict[str, float]:
    """Norm of the gradient of each loss for the parameters of a module; the graphs are kept."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norms = {}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.nn.utils.get_total_norm([each for each in gradients if each is not None]))
    return norms


def _seed_of(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])
