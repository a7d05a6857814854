"""Weights that are trained, with their optimiser and the course of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from imdn_kd.training.schedule import Factor, make_optimizer, restore, set_rates


class Learner:
    """Takes steps.

    Args:
        module: whose parameters are changed.
        optimizer: `type` and settings of an optimiser, see `optimizers`.
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
        self.optimizer = made

    @property
    def rate(self) -> float:
        """The learning rate of the last step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_rate(self, step: int) -> None:
        """Set the learning rate for an update."""
        set_rates(self.optimizer, self._course(step))

    def gradients(self) -> list[Tensor]:
        """The gradients, the same in all processes, without the scale of fp16."""
        found = [parameter.grad for parameter in self.module.parameters() if parameter.grad is not None]
        if not self._wrapped and self._accelerator.num_processes > 1:
            # First, so that all processes find the same ones infinite.
            for gradient in found:
                gradient.copy_(self._accelerator.reduce(gradient, reduction="mean"))
        self._accelerator.unscale_gradients(self.optimizer)
        return found

    def take_step(self) -> None:
        """Change the weights by what `gradients` has given."""
        if self._accelerator.scaler is None:
            self.optimizer.step()
        else:
            self._accelerator.scaler.step(self.optimizer)
