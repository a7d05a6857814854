"""Muon for networks with convolutions: steps of kernels are orthogonalised, everything else follows Adam."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the Newton-Schulz iteration, as published: the steepest at 0 that keeps singular values near 1."""


class Muon(Optimizer):
    """Momentum whose steps are orthogonalised: all singular values of a step are about 1.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024,
    https://kellerjordan.github.io/posts/muon/). A kernel O x I x h x w is taken as a matrix of O rows. Parameters of
    fewer than two dimensions (biases, slopes) follow Adam. PyTorch's own takes matrices only, and computes in bf16,
    which most CPUs emulate at ten times the cost; this one computes in the type of the parameters.

    Args:
        params: parameters.
        lr: learning rate of kernels; about ten times Adam's, since each step has a fixed size.
        vector_lr: learning rate of everything else; both follow the same schedule.
        momentum: of kernels, in [0, 1); Nesterov's.
        ns_steps: iterations of the orthogonalisation, 1 or more.
        weight_decay: of kernels, decoupled, 0 or more.
        betas: of Adam.
        eps: of Adam.

    Raises:
        ValueError: a value out of range.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 2e-2,
        *,
        vector_lr: float = 1e-3,
        momentum: float = 0.95,
        ns_steps: int = 5,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if lr < 0 or weight_decay < 0 or not 0 <= momentum < 1 or ns_steps < 1:
            raise ValueError("lr and weight_decay are 0 or more, momentum is in [0, 1), and ns_steps is 1 or more")
        given = list(params)
        # Built before the groups: it checks its own settings.
        vectors = [each for each in given if each.ndim < 2]
        self._adam = Adam(vectors or [nn.Parameter(torch.zeros(1))], vector_lr, betas=betas, eps=eps)
        groups: list[dict[str, Any]] = [
            {"params": [each for each in given if each.ndim >= 2], "lr": lr, "kernels": True},
            {"params": vectors, "lr": vector_lr, "kernels": False},
        ]
        super().__init__([group for group in groups if group["params"]], {})
        self._momentum, self._ns_steps, self._weight_decay = momentum, ns_steps, weight_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Change all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["kernels"]:
                for kernel in group["params"]:
                    self._change(kernel, group["lr"])
                continue
            self._adam.param_groups[0]["lr"] = group["lr"]
            for vector in group["params"]:
                # Kept here, where `state_dict` looks.
                self._adam.state[vector] = self.state[vector]
            self._adam.step()
        return loss

    def _change(self, kernel: Tensor, rate: float) -> None:
        if kernel.grad is None:
            return
        state = self.state[kernel]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(kernel)
        average: Tensor = state["momentum_buffer"]
        average.lerp_(kernel.grad, 1 - self._momentum)
        ahead = kernel.grad.lerp(average, self._momentum).contiguous().flatten(1)
        rows, columns = ahead.shape
        step = orthogonalised(ahead, self._ns_steps) * max(1.0, rows / columns) ** 0.5
        kernel.mul_(1 - rate * self._weight_decay).add_(step.reshape(kernel.shape), alpha=-rate)


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """Return U V^T, about, of a matrix U S V^T, by Newton-Schulz iteration: singular values come out at .7 to 1.2."""
    a, b, c = COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.mT
    # With the Frobenius norm no singular value is above 1.
    x = wide / (torch.linalg.matrix_norm(wide) + 1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    result: Tensor = x if wide is matrix else x.mT
    return result
