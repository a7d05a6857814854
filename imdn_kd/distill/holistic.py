"""Holistic distillation: a critic learns to tell teacher outputs from student outputs, the student to mislead it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from imdn_kd.archs.critic import Critic
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.terms import INVALID_OPTIONS, LossTerm, WeightSchedule
from imdn_kd.errors import InputError
from imdn_kd.losses.adversarial import critic_loss, generator_loss, gradient_penalty, hinge_critic_loss
from imdn_kd.losses.base import check_choice
from imdn_kd.registry import LOSS_TERMS, Registry


@LOSS_TERMS.register
class HolisticTerm(LossTerm):
    """Minus the mean score that a critic gives the student's output: a conditional WGAN, with gradient penalty.

    The holistic distillation of SKD (Liu et al., CVPR 2019, https://arxiv.org/abs/1903.04197, section 3), published
    weight 0.1, with the penalty of WGAN-GP (Gulrajani et al., NeurIPS 2017, https://arxiv.org/abs/1704.00028). In each
    iteration the student takes its step first, then the critic takes its own on the same outputs.

    Args:
        critic: options of `imdn_kd.archs.critic.Critic`; in option files, `num_in_ch` defaults to the student's.
        n_critic: steps of the critic for each one of the student.
        gradient_penalty: weight of the penalty.
        loss: of the critic: `wasserstein`, or `hinge`, usually with `spectral_norm` in `critic` and without penalty.
        clip: largest absolute value of the critic's weights, to which they are clamped before each use: the WGAN before
            the penalty (Arjovsky et al., ICML 2017, https://arxiv.org/abs/1701.07875), with .01; none if left out.

    Raises:
        InputError: options that cannot be used.
    """

    uses_teacher_output = True

    def __init__(
        self,
        *,
        critic: Mapping[str, Any] | None = None,
        n_critic: int = 1,
        gradient_penalty: float = 10.0,
        loss: str = "wasserstein",
        clip: float | None = None,
        weight: float | WeightSchedule = 1.0,
        name: str = "l_holistic",
    ) -> None:
        super().__init__(weight=weight, name=name)
        if not (isinstance(n_critic, int) and n_critic >= 1 and 0 <= gradient_penalty < math.inf):
            given = f"n_critic is {n_critic} and gradient_penalty {gradient_penalty}"
            raise InputError(f"{given}; give a whole number from 1, and a number from 0", code=INVALID_OPTIONS)
        check_choice("HolisticTerm", "loss", loss, _LOSSES)
        if clip is not None and not 0 < clip < math.inf:
            raise InputError(f"clip is {clip}; give a number above 0, as 0.01", code=INVALID_OPTIONS)
        self.n_critic, self.gradient_penalty, self.loss, self.clip = n_critic, gradient_penalty, loss, clip
        self.critic: Critic = _CRITICS.build({"type": "Critic", **(critic or {})})

    def forward(self, context: StepContext) -> Tensor:
        """Return the student's loss; the critic gets no gradient."""
        self._clamp()
        with _frozen(self.critic):
            return generator_loss(self.critic(context.enlarged, context.quantise_like_cache(context.sr)))

    def critic_losses(self, context: StepContext) -> dict[str, Tensor]:
        """Return the critic's losses by name, weighted; the student gets no gradient."""
        self._clamp()
        condition, real, fake = context.enlarged, context.teacher_sr, context.quantise_like_cache(context.sr).detach()
        scores = _LOSSES[self.loss](self.critic(condition, real), self.critic(condition, fake))
        if not self.gradient_penalty:
            return {"d_score": scores}
        penalty = gradient_penalty(self.critic, condition, real, fake)
        return {"d_score": scores, "d_penalty": self.gradient_penalty * penalty}

    @torch.no_grad()
    def _clamp(self) -> None:
        if self.clip is not None:
            for weights in self.critic.parameters():
                weights.clamp_(-self.clip, self.clip)


_LOSSES = {"wasserstein": critic_loss, "hinge": hinge_critic_loss}

# Only to check the options of a critic like those of networks and losses.
_CRITICS: Registry[Critic] = Registry("critic", "imdn_kd.archs.critic")
_CRITICS.register(Critic)


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)
