"""Benches of the plain family: its speed beside IMDN_RTC, and what training it as wider blocks costs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from imdn_kd.archs.reparam import expand
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.registry import ARCHS
from imdn_kd.training.optim import make_optimizer

Compare = Callable[..., float]
BATCH, SIDE = 16, 48


def speed(compare: Compare) -> None:
    """plain_m against IMDN_RTC of the same factor, pixels to pixels, result 1280x720."""
    for scale in (2, 3, 4):
        image = np.random.default_rng(0).integers(0, 256, (720 // scale, 1280 // scale, 3), np.uint8)
        ours, other = (
            Upscaler(ARCHS.build({"type": name, "upscale": scale}).eval(), precision="fp32", device="cpu")
            for name in ("plain_m", "imdn_rtc")
        )
        compare(
            f"plain_m x{scale} / imdn_rtc x{scale}, fp32, 1280x720 out", partial(ours, image), partial(other, image)
        )


def reparam(compare: Compare) -> None:
    """An update of plain_m x4 in its training form against one of the plain network, by Adam and by Muon."""
    for optimizer in ("Adam", "Muon"):
        title = f"update of plain_m x4, re-parameterised / plain, {optimizer}, batch {BATCH} of {SIDE}x{SIDE} px"
        compare(title, _update(optimizer, expanded=True), _update(optimizer, expanded=False))


def _update(name: str, *, expanded: bool) -> Callable[[], None]:
    torch.manual_seed(0)
    network = ARCHS.build({"type": "plain_m", "upscale": 4})
    if expanded:
        expand(network)
    network.to(memory_format=torch.channels_last)
    optimizer = make_optimizer(network.parameters(), name, lr=1e-4)
    lq, gt = (
        torch.rand(BATCH, 3, side, side).contiguous(memory_format=torch.channels_last) for side in (SIDE, 4 * SIDE)
    )

    def call() -> None:
        optimizer.zero_grad()
        (network(lq) - gt).abs().mean().backward()
        optimizer.step()

    return call
