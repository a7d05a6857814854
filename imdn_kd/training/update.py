"""One training iteration: each optimizer in it takes a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from imdn_kd.data.patches import Batch
from imdn_kd.distill.distiller import STUDENT, Distiller, OptimStep
from imdn_kd.distill.step_context import StepContext
from imdn_kd.training.optim import OptimState


@dataclass
class StepResult:
    """The losses of one iteration, and which modules were updated.

    Attributes:
        losses: means over the batches, by name.
        norms: of the gradient of each of the student's losses in the last batch, by name, if these were asked for.
        taken: names of the modules whose optimizers took a step.
        failed: names of those whose gradients were not finite; neither they nor those after them took a step.
    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    norms: Mapping[str, float] = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class TrainStep:
    """One training iteration: losses, gradients and optimizer steps of all trainable modules.

    Args:
        distiller: gives the optimizer steps of an iteration and their losses.
        optims: of the trainable modules, by name.
        accelerator: precision and processes.
        seed: of the training.
        grad_clip: largest norm of the student's gradient; None is no limit.
    """

    def __init__(
        self,
        distiller: Distiller,
        optims: Mapping[str, OptimState],
        accelerator: Accelerator,
        *,
        seed: int,
        grad_clip: float | None = None,
    ) -> None:
        self._distiller, self._optims, self._accelerator = distiller, optims, accelerator
        self._seed, self._grad_clip = seed, grad_clip

    def run(self, batches: Sequence[Batch], step: int, *, norms: bool = False) -> StepResult:
        """Make one iteration.

        Args:
            batches: one or more, whose gradients are averaged.
            step: iterations done.
            norms: whether the norms of the gradients of single losses are wanted.
        """
        # Whatever is drawn inside networks and objectives depends on the iteration alone, as the patches do.
        torch.manual_seed(_seed_of(self._seed, step, self._accelerator.process_index))
        for optim in self._optims.values():
            optim.set_lr(step)
        update, contexts = StepResult(), list[StepContext]()
        for optim_step in self._distiller.optim_steps(step):
            for name in optim_step.trains:
                # Now, since the gradients of an iteration that fails are looked at.
                self._optims[name].optimizer.zero_grad()
            if STUDENT in optim_step.trains:
                contexts = self._student(optim_step, batches, update, norms=norms)
            else:
                for context in contexts:
                    self._add(update, self._backward(optim_step, context, len(batches)))
            if not self._step(optim_step):
                update.failed = optim_step.trains
                break
            update.taken += optim_step.trains
        return update

    def _student(
        self, optim_step: OptimStep, batches: Sequence[Batch], update: StepResult, *, norms: bool
    ) -> list[StepContext]:
        """Compute the student's losses and gradients; return the contexts for the steps after its own."""
        contexts = []
        for number, batch in enumerate(batches, 1):
            # Processes need not exchange gradients before they are complete.
            alone = number < len(batches)
            with self._accelerator.no_sync(self._distiller.student) if alone else nullcontext():
                context = self._distiller.run_student(batch)
                wanted = update if norms and not alone else None
                parts = self._backward(optim_step, context, len(batches), norms_for=wanted)
            self._add(update, parts)
            contexts.append(context.release_graph())
        return contexts

    def _backward(
        self, optim_step: OptimStep, context: StepContext, batches: int, norms_for: StepResult | None = None
    ) -> Mapping[str, Tensor]:
        parts = {name: loss / batches for name, loss in optim_step.losses(context).items()}
        if norms_for is not None and len(parts) > 1:
            norms = norms_of_gradients(parts, self._optims[STUDENT].module)
            norms_for.norms = {name: norm * batches for name, norm in norms.items()}
        total = torch.stack(list(parts.values())).sum()
        if STUDENT in optim_step.trains and self._accelerator.num_processes > 1:
            # Those whose gradients are exchanged must all have one, also where only features are compared.
            total = total + 0 * context.sr.sum()
        self._accelerator.backward(total)
        return parts

    def _add(self, update: StepResult, parts: Mapping[str, Tensor]) -> None:
        for name, part in parts.items():
            update.losses[name] = update.losses.get(name, 0) + part.detach()

    def _step(self, optim_step: OptimStep) -> bool:
        """Take an optimizer step; return False, without one, if gradients are not finite."""
        optims = [self._optims[name] for name in optim_step.trains]
        gradients = [gradient for optim in optims for gradient in optim.gradients()]
        finite = bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients)))
        if finite:
            if self._grad_clip is not None and STUDENT in optim_step.trains:
                torch.nn.utils.clip_grad_norm_(self._optims[STUDENT].module.parameters(), self._grad_clip)
            for optim in optims:
                optim.take_step()
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
