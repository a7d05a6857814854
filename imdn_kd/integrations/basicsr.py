"""The plug-in of BasicSR: a BasicSR project that imports this module has our networks, our losses and `DistillModel`.

A `main.py` of two lines trains with them:

    import imdn_kd.integrations.basicsr
    from basicsr.train import train_pipeline; train_pipeline(".")

Networks and losses are asked for in option files by their names here, with the same options; a loss takes BasicSR's
`loss_weight` and `reduction` besides, of which there is `mean` alone. A name that is taken already keeps its meaning:
`L1Loss`, `MSELoss` and `CharbonnierLoss` are BasicSR's own, and what a project has registered before stays its own.
For `model_type: DistillModel`, see `basicsr_model`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.integrations.basicsr_model import DistillModel
from imdn_kd.integrations.basicsr_networks import import_basicsr
from imdn_kd.registry import ARCHS, LOSSES

__all__ = ["DistillModel"]


class WeightedLoss(nn.Module):
    """A loss of ours in the way that BasicSR calls losses.

    Args:
        loss: from images or features to a scalar.
        loss_weight: its factor.
    """

    def __init__(self, loss: nn.Module, loss_weight: float) -> None:
        super().__init__()
        self.loss, self.loss_weight = loss, loss_weight

    def forward(self, *images: Tensor) -> Tensor:
        """Return the weighted loss, a scalar; arguments as of the loss, the student's first."""
        loss: Tensor = self.loss_weight * self.loss(*images)
        return loss


def _network(name: str) -> Callable[..., nn.Module]:
    def build(**options: Any) -> nn.Module:  # noqa: ANN401 - plain values
        network: nn.Module = ARCHS.build({**options, "type": name})
        return network

    return build


def _loss(name: str) -> Callable[..., nn.Module]:
    def build(*, loss_weight: float = 1.0, reduction: str = "mean", **options: Any) -> nn.Module:  # noqa: ANN401
        if reduction != "mean":
            raise InputError(
                f"reduction of {name} is {reduction!r}, but there is 'mean' alone; leave it out", code="loss.reduction"
            )
        return WeightedLoss(LOSSES.build({**options, "type": name}), loss_weight)

    return build


def _register() -> None:
    # These modules fill the registries of BasicSR, whose names come first.
    for module in ("basicsr.archs", "basicsr.losses", "basicsr.models"):
        import_basicsr(module)
    theirs = import_basicsr("basicsr.utils.registry")
    entries: list[tuple[Any, str, Callable[..., Any]]] = [
        *((theirs.ARCH_REGISTRY, name, _network(name)) for name in ARCHS),
        *((theirs.LOSS_REGISTRY, name, _loss(name)) for name in LOSSES),
        (theirs.MODEL_REGISTRY, "DistillModel", DistillModel),
    ]
    for registry, name, builder in entries:
        if name not in registry:
            builder.__name__ = name
            registry.register(builder)


_register()
