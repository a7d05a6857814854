"""Holistic distillation: a critic that tells the student's results from the teacher's, and the student against it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from imdn_kd.archs.critic import Critic
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import Objective
from imdn_kd.errors import InputError
from imdn_kd.losses.adversarial import critic_loss, generator_loss, gradient_penalty
from imdn_kd.registry import OBJECTIVES, Registry


@OBJECTIVES.register
class Holistic(Objective):
    """A conditional Wasserstein GAN with gradient penalty (SKD, Liu et al., section 3); published weight 0.1.

    In each update the student learns first, then the critic, from the same results.

    Args:
        critic: options of `imdn_kd.archs.critic.Critic`; `num_in_ch` is the student's if it is left out.
        n_critic: updates of the critic for each one of the student.
        gradient_penalty: weight of the penalty.

    Raises:
        InputError: options that cannot be used.
    """

    uses_result = True

    def __init__(
        self, *, critic: Mapping[str, Any] | None = None, n_critic: int = 1, gradient_penalty: float = 10.0
    ) -> None:
        super().__init__()
        if not (isinstance(n_critic, int) and n_critic >= 1 and 0 <= gradient_penalty < math.inf):
            given = f"n_critic is {n_critic} and gradient_penalty {gradient_penalty}"
            raise InputError(f"{given}; give a whole number from 1, and a number from 0")
        self.n_critic, self.gradient_penalty = n_critic, gradient_penalty
        self.critic: Critic = _CRITICS.build({"type": "Critic", **(critic or {})})

    def forward(self, context: StepContext) -> Tensor:
        """The student's part; the critic has no gradient of it."""
        with _frozen(self.critic):
            return generator_loss(self.critic(context.enlarged, context.quantise_like_cache(context.sr)))

    def critic_losses(self, context: StepContext) -> dict[str, Tensor]:
        """The critic's part, by name, weighted; the student has no gradient of it."""
        condition, real, fake = context.enlarged, context.teacher_sr, context.quantise_like_cache(context.sr).detach()
        scores = critic_loss(self.critic(condition, real), self.critic(condition, fake))
        if not self.gradient_penalty:
            return {"d_score": scores}
        penalty = gradient_penalty(self.critic, condition, real, fake)
        return {"d_score": scores, "d_penalty": self.gradient_penalty * penalty}


# Only to check the options of a critic in the way of those of networks and losses.
_CRITICS: Registry[Critic] = Registry("critic", "imdn_kd.archs.critic")
_CRITICS.register(Critic)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
