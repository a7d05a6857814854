"""Teachers: networks that are asked, and never change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.data.augment import HFLIP, TRANSPOSE, VFLIP, apply, undo
from imdn_kd.distill.hooks import SR, FeatureHooks
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
        channels = network.info.num_in_ch
        if mean is not None and len(mean) != channels:
            raise InputError(f"mean has {len(mean)} values, but {name} takes images of {channels} channels")
        self.network = network.requires_grad_(False)
        self.name, self.weight, self.value_range, self.self_ensemble = name, weight, value_range, self_ensemble
        self.precision = precision
        self.register_buffer("mean", torch.tensor(mean or [0.0] * channels).view(1, channels, 1, 1), persistent=False)
        self.taps: FeatureHooks | None = None
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode."""
        super().train(False)
        return self

    def tap(self, names: Sequence[str], lq: Tensor) -> dict[str, tuple[int, ...]]:
        """Record features from now on, and return their shapes for an input, that of the result, `sr`, among them.

        Args:
            names: see `FeatureHooks`; `sr` needs no recording.
            lq: the input, N x C x H x W in [0, 1].
        """
        wanted = [name for name in dict.fromkeys(names) if name != SR]
        self.taps = FeatureHooks(self.network, wanted) if wanted else None
        if self.taps is not None:
            self.taps.probe(self.normalize_input(self._filled_up(lq)))
        return {name: tuple(feature.shape) for name, feature in self.forward_features(lq)[1].items()}

    def normalize_input(self, lq: Tensor) -> Tensor:
        """Images in [0, 1] as the network takes them."""
        return (lq - self.mean) * self.value_range

    @torch.no_grad()
    def forward(self, lq: Tensor) -> Tensor:
        """Enlarge images in [0, 1], N x C x H x W; the result is float32 and not clamped."""
        return self._ensemble(lq, self._run(lq))

    @torch.no_grad()
    def forward_features(self, lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Enlarge images, and return the features that are tapped as well: those of the images as they are."""
        if self.taps is None:
            sr, features = self._run(lq), {}
        else:
            with self.taps.recording() as whole:
                sr = self._run(lq)
            filled = self._filled_up(lq).shape[2:]
            features = {name: _cut(feature, lq.shape[2:], filled) for name, feature in whole.items()}
        sr = self._ensemble(lq, sr)
        return sr, {**features, SR: sr}

    def _ensemble(self, lq: Tensor, sr: Tensor) -> Tensor:
        if not self.self_ensemble:
            return sr
        return torch.stack([sr, *(self._turned(lq, code) for code in TURNS[1:])]).mean(0)

    def _filled_up(self, lq: Tensor) -> Tensor:
        """Images with their edges repeated, to a size that the network takes."""
        below, right = (_to_fit(side, self.network.info) - side for side in lq.shape[2:])
        return functional.pad(lq, (0, right, 0, below), mode="replicate") if below or right else lq

    def _run(self, lq: Tensor) -> Tensor:
        scale, (height, width) = self.network.info.scale, lq.shape[2:]
        lq = self._filled_up(lq)
        mixed = self.precision != torch.float32
        with torch.autocast(lq.device.type, self.precision if mixed else None, enabled=mixed):
            sr: Tensor = self.network(self.normalize_input(lq))
        return sr[:, :, : height * scale, : width * scale].float() / self.value_range + self.mean

    def _turned(self, lq: Tensor, code: int) -> Tensor:
        # Not all at once: images need not be square.
        if code & TRANSPOSE:
            lq = lq.transpose(2, 3)
        transform_codes = torch.full((len(lq),), code & ~TRANSPOSE)
        sr = undo(self._run(apply(lq, transform_codes)), transform_codes)
        return sr.transpose(2, 3) if code & TRANSPOSE else sr


def _to_fit(side: int, info: ModelInfo) -> int:
    """The next side that a network takes."""
    multiple = info.size_multiple
    return -(-max(side, info.min_size) // multiple) * multiple


def _cut(feature: Tensor, size: Sequence[int], filled: Sequence[int]) -> Tensor:
    """The part of a feature map of filled up images that is of the images themselves."""
    height, width = (side * part // whole for side, part, whole in zip(feature.shape[2:], size, filled, strict=True))
    return feature[:, :, :height, :width]


def mean_of(teachers: Sequence[Teacher], results: Sequence[Tensor]) -> Tensor:
    """The mean of the results of several teachers, by their weights."""
    if len(results) == 1:
        return results[0]
    total = sum(teacher.weight for teacher in teachers)
    parts = [result * (teacher.weight / total) for teacher, result in zip(teachers, results, strict=True)]
    return torch.stack(parts).sum(0)
