"""A student and the terms of its loss: batches in, named losses out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Term:
    """One part of the loss.

    Attributes:
        name: under which it is logged, as `l_pix`.
        loss: from the student's result and the original, N x C x H x W each, to a scalar.
        weight: its factor in the sum.
    """

    name: str
    loss: nn.Module
    weight: float = 1.0


class Distiller:
    """Computes the losses of a student.

    Args:
        student: from N x C x H x W to N x C x sH x sW; perhaps wrapped, for mixed precision or several processes.
        terms: what the loss is made of, one or more.
    """

    def __init__(self, student: nn.Module, terms: Sequence[Term]) -> None:
        self.student = student
        self.terms = tuple(terms)

    def losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted losses by name; their sum is what is to fall.

        Args:
            batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1].
        """
        sr = self.student(batch["lq"])
        return {term.name: term.weight * term.loss(sr, batch["gt"]) for term in self.terms}
