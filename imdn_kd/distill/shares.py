"""The shares of loss terms in a loss, to see before training whether their weights suit each other."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.step_context import StepContext


def loss_shares(distiller: Distiller, batch: Mapping[str, Tensor], iteration: int = 0) -> dict[str, float]:
    """Return the share of each term in the sum of the absolute weighted losses, without any effect on the networks.

    Args:
        distiller: with all that it needs on one device; teachers run where their output is not in the batch.
        batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1].
        iteration: iterations done; the share of a term whose weight is still 0 then is 0.
    """
    student = distiller.student
    training = student.training
    with torch.no_grad(), torch.random.fork_rng([]):
        context = StepContext(
            batch,
            student=student.eval(),
            info=distiller.info,
            hooks=distiller.hooks,
            teachers=distiller.teachers,
            cached=None if distiller.cache_key is None else batch.get(distiller.cache_key),
        )
        losses = {name: abs(loss.item()) for name, loss in distiller.losses(context, iteration).items()}
    student.train(training)
    total = sum(losses.values()) or 1.0
    return {term.name: losses.get(term.name, 0.0) / total for term in distiller.terms}
