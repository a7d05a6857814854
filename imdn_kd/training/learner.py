"""Weights that are trained, with their optimiser and the course of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from imdn_kd.training.schedule import Factor, make_optimizer, restore, set_rates


class Learner:
    """Takes steps.

    Args:
        module: whose parameters are changed.
        optimizer: `type` and settings of an optimiser of PyTorch.
        course: of its learning rate.
        accelerator: device, precision and processes.
        state: of its optimiser, to go on from.
        wrapped: whether processes exchange the gradients of this module while they are computed, as those of a module
            that is wrapped for it; otherwise they do before a step.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: tuple[str, Mapping[str, Any]],
        course: Factor,
        accelerator: Accelerator,
        *,
        state: dict[str, Any] | None = None,
        wrapped: bool = False,
    ) -> None:
        self.module = module
        self._course, self._accelerator, self._wrapped = course, accelerator, wrapped
        kind, settings = optimizer
        made = make_optimizer(module.parameters(), kind, **settings)
        if state is not None:
            restore(made, state)
        self.optimizer = accelerator.prepare_optimizer(made)

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state(self) -> dict[str, Any]:
        """The state of the optimiser."""
        state: dict[str, Any] = self.optimizer.optimizer.state_dict()
        return state

    def begin(self, step: int) -> None:
        """Set the learning rate for an update."""
        set_rates(self.optimizer, self._course(step))

    def gradients(self) -> list[Tensor]:
        """The gradients, unscaled and the same in all processes."""
        self._accelerator.unscale_gradients(self.optimizer)
        found = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if not self._wrapped and self._accelerator.num_processes > 1:
            for gradient in found:
                gradient.copy_(self._accelerator.reduce(gradient, reduction="mean"))
        return found

    def end(self, *, finite: bool) -> None:
        """Take the step, unless the gradients are not finite, and forget them."""
        # The scaler of fp16 has to hear of an overflow, and skips the step itself.
        if finite or self._accelerator.scaler is not None:
            self.optimizer.step()
        self.optimizer.zero_grad()


def norms_of_gradients(losses: Mapping[str, Tensor], module: nn.Module) -> dict[str, float]:
    """Norm of the gradient of each loss for the parameters of a module; the graphs are kept."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    norms = {}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        norms[name] = float(torch.nn.utils.get_total_norm([each for each in gradients if each is not None]))
    return norms
