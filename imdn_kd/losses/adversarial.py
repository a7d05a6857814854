"""Losses of holistic distillation: a conditional Wasserstein GAN with gradient penalty, or the hinge loss.

As in SKD (Liu et al., CVPR 2019, https://arxiv.org/abs/1903.04197, section 3), after WGAN-GP (Gulrajani et al., NeurIPS
2017, https://arxiv.org/abs/1704.00028): real is the teacher's output, fake is the student's, and the critic sees the
input too. The critic minimises `critic_loss` + 10 * `gradient_penalty`, the student 0.1 * `generator_loss`,
alternating.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import SHAPES_DIFFER, upcast

Scorer = Callable[[Tensor, Tensor], Tensor]
"""From a condition and an image, N x C x H x W each, to scores, N; for example `imdn_kd.archs.critic.Critic`."""


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return mean(fake) - mean(real), a scalar without bounds: minus the estimated Wasserstein distance.

    Args:
        real_scores: N, of the teacher's outputs.
        fake_scores: N, of the student's outputs, detached from the student.
    """
    return fake_scores.mean() - real_scores.mean()


def hinge_critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return mean(max(0, 1 - real)) + mean(max(0, 1 + fake)), a scalar from 0 up; arguments as for `critic_loss`.

    Lim and Ye, "Geometric GAN", 2017, https://arxiv.org/abs/1705.02894.
    """
    return functional.relu(1 - real_scores).mean() + functional.relu(1 + fake_scores).mean()


def generator_loss(fake_scores: Tensor) -> Tensor:
    """Return -mean(fake), a scalar without bounds: the student's part. `fake_scores`: N, with gradient."""
    return -fake_scores.mean()


def gradient_penalty(critic: Scorer, condition: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of (||g|| - 1)^2 >= 0, a scalar, at least float32: how far the critic is from 1-Lipschitz.

    g is the gradient of a sample's score by the image, at a random point between real and fake, uniform in the line
    through both and drawn anew for each sample from PyTorch's global generator of the device. Computed in float32 or
    better, whatever the precision of the images and whether there is autocast. It has a gradient for the weights of
    the critic and none for the images. Gradients must be enabled.

    Args:
        critic: scores each sample without regard to the others, and can be differentiated twice.
        condition: N x C x H x W, as the critic takes it.
        real: N x C x H x W, the teacher's outputs.
        fake: of the same shape, the student's outputs.

    Raises:
        InputError: `real` and `fake` differ in shape.
    """
    if real.shape != fake.shape:
        shapes = f"{tuple(real.shape)} and {tuple(fake.shape)}"
        raise InputError(
            f"outputs of teacher and student must have the same shape, but are {shapes}", code=SHAPES_DIFFER
        )
    condition, real, fake = (upcast(images.detach()) for images in (condition, real, fake))
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand((len(real), 1, 1, 1), dtype=real.dtype, device=real.device)
        between = torch.lerp(real, fake, share).requires_grad_()
        # No score depends on another sample, so the gradient of their sum holds that of each.
        (gradient,) = torch.autograd.grad(critic(condition, between).sum(), between, create_graph=True)
        penalty: Tensor = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    return penalty
