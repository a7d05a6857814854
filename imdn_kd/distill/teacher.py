"""Teachers: frozen networks whose outputs and features a student learns from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.probing import info_of
from imdn_kd.data.augment import HFLIP, TRANSPOSE, VFLIP, apply, undo
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import load_model

STUDENT_MISMATCH = "teacher.student-mismatch"
"""Code of the error about a teacher of another scale, or of other channels, than the student."""

ROTATIONS = range(HFLIP + VFLIP + TRANSPOSE + 1)
"""Codes of the eight rotations and mirror images; the first changes nothing."""


class Teacher(nn.Module):
    """A frozen network: always in eval mode, never with gradients.

    Args:
        network: any module from images N x C x H x W to images N x C x sH x sW, frozen from now on; or the path of a
            model file or checkpoint, or the name of a student of the zoo.
        name: for messages (default: the path).
        value_range: what stands for white in its input and output (default: as its file says, otherwise 1).
        mean: values of the C channels, in [0, 1], that are subtracted from its input and added to its output.
        self_ensemble: average over the eight rotations and mirror images, at eight times the cost (Timofte et al., CVPR
            2016, https://arxiv.org/abs/1511.02228).
        precision: float32, or the type of mixed precision.
        weight: its part in the mean of several teachers, positive.

    Attributes:
        info: of the network.
        hooks: on the features that are compared; None without any.

    Raises:
        InputError: the file cannot be used, or `mean` is not of C values.
    """

    mean: Tensor

    def __init__(
        self,
        network: nn.Module | str | Path,
        *,
        name: str | None = None,
        value_range: float | None = None,
        mean: Sequence[float] | None = None,
        self_ensemble: bool = False,
        precision: torch.dtype = torch.float32,
        weight: float = 1.0,
    ) -> None:
        super().__init__()
        if isinstance(network, (str, Path)):
            file = load_model(network)
            name, value_range, network = name or str(network), value_range or file.value_range, file.network
        self.name, self.info = name or "teacher", info_of(network)
        channels = self.info.num_in_ch
        if mean is not None and len(mean) != channels:
            raise InputError(
                f"mean has {len(mean)} values, but {self.name} takes images of {channels} channels",
                code="teacher.mean-mismatch",
            )
        self.network = network.requires_grad_(False)
        self.weight, self.value_range, self.self_ensemble = weight, value_range or 1.0, self_ensemble
        self.precision = precision
        self.register_buffer("mean", torch.tensor(mean or [0.0] * channels).view(1, channels, 1, 1), persistent=False)
        self.hooks: FeatureHooks | None = None
        self.train(False)

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode."""
        super().train(False)
        return self

    def hook(self, names: Sequence[str], lq: Tensor) -> dict[str, tuple[int, ...]]:
        """Record features from now on, and return their shapes for an input, that of the output, `sr`, among them.

        Args:
            names: see `FeatureHooks`; `sr` needs no hook.
            lq: the input, N x C x H x W in [0, 1].
        """
        wanted = [name for name in dict.fromkeys(names) if name != SR]
        self.hooks = FeatureHooks(self.network, wanted) if wanted else None
        if self.hooks is not None:
            self.hooks.probe(self.normalize_input(self._padded(lq)))
        return {name: tuple(feature.shape) for name, feature in self.forward_features(lq)[1].items()}

    def normalize_input(self, lq: Tensor) -> Tensor:
        """Images in [0, 1] in the value range of the network, without its mean."""
        return (lq - self.mean) * self.value_range

    @torch.no_grad()
    def forward(self, lq: Tensor) -> Tensor:
        """Upscale images in [0, 1], N x C x H x W of any size; the output is float32 and not clamped."""
        return self._ensemble(lq, self._run(lq))

    @torch.no_grad()
    def forward_features(self, lq: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Upscale images; return the output and the hooked features (without self-ensemble), `sr` among them."""
        if self.hooks is None:
            sr, features = self._run(lq), {}
        else:
            with self.hooks.recording() as whole:
                sr = self._run(lq)
            padded = self._padded(lq).shape[2:]
            features = {name: _cut(feature, lq.shape[2:], padded) for name, feature in whole.items()}
        sr = self._ensemble(lq, sr)
        return sr, {**features, SR: sr}

    def embed(self, images: Tensor, hooks: FeatureHooks) -> dict[str, Tensor]:
        """Return features of images, with gradients for these if they have any; the network runs no further.

        Args:
            images: N x C x H x W in [0, 1], of any size.
            hooks: on the network, see `FeatureHooks`.
        """
        given = self.normalize_input(self._padded(images))
        with hooks.recording(stop=True) as features, self._autocast(images):
            self.network(given)
        return features

    def _autocast(self, images: Tensor) -> torch.autocast:
        mixed = self.precision != torch.float32
        return torch.autocast(images.device.type, self.precision if mixed else None, enabled=mixed)

    def _ensemble(self, lq: Tensor, sr: Tensor) -> Tensor:
        if not self.self_ensemble:
            return sr
        return torch.stack([sr, *(self._rotated(lq, code) for code in ROTATIONS[1:])]).mean(0)

    def _padded(self, lq: Tensor) -> Tensor:
        """Images padded at the bottom and right, by repeating their edges, to a size that the network takes."""
        below, right = (_to_fit(side, self.info) - side for side in lq.shape[2:])
        return functional.pad(lq, (0, right, 0, below), mode="replicate") if below or right else lq

    def _run(self, lq: Tensor) -> Tensor:
        scale, (height, width) = self.info.scale, lq.shape[2:]
        lq = self._padded(lq)
        with self._autocast(lq):
            sr: Tensor = self.network(self.normalize_input(lq))
        return sr[:, :, : height * scale, : width * scale].float() / self.value_range + self.mean

    def _rotated(self, lq: Tensor, code: int) -> Tensor:
        # Not all at once: images need not be square.
        if code & TRANSPOSE:
            lq = lq.transpose(2, 3)
        transform_codes = torch.full((len(lq),), code & ~TRANSPOSE)
        sr = undo(self._run(apply(lq, transform_codes)), transform_codes)
        return sr.transpose(2, 3) if code & TRANSPOSE else sr


def _to_fit(side: int, info: ModelInfo) -> int:
    """The smallest side that a network takes, from `side`."""
    multiple = info.size_multiple
    return -(-max(side, info.min_size) // multiple) * multiple


def _cut(feature: Tensor, size: Sequence[int], padded: Sequence[int]) -> Tensor:
    """The part of a feature map of padded images that belongs to the images themselves."""
    height, width = (side * part // whole for side, part, whole in zip(feature.shape[2:], size, padded, strict=True))
    return feature[:, :, :height, :width]


def mean_of(teachers: Sequence[Teacher], results: Sequence[Tensor]) -> Tensor:
    """The mean of the outputs of several teachers, by their weights."""
    if len(results) == 1:
        return results[0]
    total = sum(teacher.weight for teacher in teachers)
    parts = [result * (teacher.weight / total) for teacher, result in zip(teachers, results, strict=True)]
    return torch.stack(parts).sum(0)
