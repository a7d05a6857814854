"""Teachers: networks that are asked, and never change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.archs.network import Facts, SRNetwork
from imdn_kd.data.augment import HFLIP, TRANSPOSE, VFLIP, apply, undo
from imdn_kd.distill.taps import SR, Taps
from imdn_kd.errors import InputError

TURNS = range(HFLIP + VFLIP + TRANSPOSE + 1)
"""Codes of the eight turns and mirror images; the first changes nothing."""


class Teacher(nn.Module):
    """A trained network that stays in eval mode, without gradients, whatever is asked of the modules around it.

    Args:
        network: changed to be so; from N x C x H x W to N x C x sH x sW.
        name: for messages.
        value_range: what stands for white in its input and output.
        mean: values of the C channels, in [0, 1], that are subtracted from its input and added to its output.
        self_ensemble: answer with the mean over the eight turns and mirror images (Timofte et al., "Seven ways to
            improve example-based single image super resolution", CVPR 2016).
        precision: float32, or the type of mixed precision.
        weight: part in the mean of several teachers, positive.

    Raises:
        InputError: `mean` is not of C values.
    """

    mean: Tensor

    def __init__(
        self,
        network: SRNetwork,
        *,
        name: str = "teacher",
        value_range: float = 1.0,
        mean: Sequence[float] | None = None,
        self_ensemble: bool = False,
        precision: torch.dtype = torch.float32,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        channels = network.facts.num_in_ch
        if mean is not None and len(mean) != channels:
            raise InputError(f"mean has {len(mean)} values, but {name} takes images of {channels} channels")
        self.network = network.requires_grad_(False)
        self.name, self.weight, self.value_range, self.self_ensemble = name, weight, value_range, self_ensemble
        self.precision = precision
        self.register_buffer("mean", torch.tensor(mean or [0.0] * channels).view(1, channels, 1, 1), persistent=False)
        self.taps: Taps | None = None
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode."""
        super().train(False)
        return self

    def tap(self, names: Sequence[str], lq: Tensor) -> dict[str, tuple[int, ...]]:
        """Record features from now on, and return their shapes for an input, that of the result, `sr`, among them.

        Args:
            names: see `Taps`; `sr` needs no recording.
            lq: the input, N x C x H x W in [0, 1].
        """
        scale = self.network.facts.scale
        shapes: dict[str, tuple[int, ...]] = {SR: (*lq.shape[:2], lq.shape[2] * scale, lq.shape[3] * scale)}
        wanted = [name for name in dict.fromkeys(names) if name != SR]
        self.taps = Taps(self.network, wanted) if wanted else None
        if self.taps is not None:
            shapes |= {row.name: row.shape for row in self.taps.probe(self.as_given(lq))}
        return shapes

    def as_given(self, lq: Tensor) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        return (lq - self.mean) * self.value_range

    @torch.no_grad()
    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge images in [0, 1], N x C x H x W; the result is float32 and not clamped."""
        return self.look(lq)[0]

    @torch.no_grad()
    def look(self, lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Enlarge images, and return the features that are tapped as well: those of the images as they are."""
        if self.taps is None:
            sr, features = self._run(lq), {}
        else:
            with self.taps.recording() as features:
                sr = self._run(lq)
        if self.self_ensemble:
            others = [self._turned(lq, code) for code in TURNS[1:]]
            sr = torch.stack([sr, *others]).mean(0)
        return sr, {**features, "sr": sr}

    def _run(self, lq: Tensor) -> Tensor:
        facts = self.network.facts
        height, width = lq.shape[2:]
        below, right = (_to_fit(side, facts) - side for side in (height, width))
        if below or right:
            lq = functional.pad(lq, (0, right, 0, below), mode="replicate")
        mixed = self.precision != torch.float32
        with torch.autocast(lq.device.type, self.precision if mixed else None, enabled=mixed):
            sr: Tensor = self.network(self.as_given(lq))
        return sr[:, :, : height * facts.scale, : width * facts.scale].float() / self.value_range + self.mean

    def _turned(self, lq: Tensor, code: int) -> Tensor:
        # Not all at once: images need not be square.
        if code & TRANSPOSE:
            lq = lq.transpose(2, 3)
        codes = torch.full((len(lq),), code & ~TRANSPOSE)
        sr = undo(self._run(apply(lq, codes)), codes)
        return sr.transpose(2, 3) if code & TRANSPOSE else sr


def _to_fit(side: int, facts: Facts) -> int:
    """The next side that a network takes."""
    multiple = facts.size_multiple
    return -(-max(side, facts.min_size) // multiple) * multiple


def mean_of(teachers: Sequence[Teacher], results: Sequence[Tensor]) -> Tensor:
    """The mean of the results of several teachers, by their weights."""
    if len(results) == 1:
        return results[0]
    total = sum(teacher.weight for teacher in teachers)
    parts = [result * (teacher.weight / total) for teacher, result in zip(teachers, results, strict=True)]
    return torch.stack(parts).sum(0)
