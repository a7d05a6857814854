"""Cached maps: what loss terms compare of a teacher's features, kept for whole images, so that it need not run."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor, nn

from imdn_kd.errors import InputError
from imdn_kd.losses.base import WHOLE, FeatureLoss, upcast


@dataclass(frozen=True)
class CachedMap:
    """What a loss compares of one feature of a teacher: its summary, see `FeatureLoss`.

    The map of a patch is cut from that of its image, and flipped and turned with the patch. It differs from what the
    teacher makes of the patch: up to the receptive field from the edges, since it has seen what lies beyond; everywhere
    if the teacher pools over the whole image, or cuts it into windows; and if the patch is flipped or turned.

    Attributes:
        teacher: number of the teacher.
        feature: hook of the feature.
        summary: name of the summary.
        cell: side of the square of the feature, px, that a px of the map is made of.
        step: LR px per px of the feature.
        channels: of the map.
    """

    teacher: int
    feature: str
    summary: str
    cell: int
    step: Fraction
    channels: int

    @property
    def pitch(self) -> Fraction:
        """LR px per px of the map: patches start at its multiples, and their sides are such."""
        return self.cell * self.step

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float32 for a single number per px, which may be a power; otherwise float16."""
        return np.dtype(np.float32 if self.channels == 1 else np.float16)

    def nbytes(self, height: int, width: int) -> int:
        """Size in bytes for an LR image, px."""
        rows, columns = (-(-int(side / self.step) // self.cell) for side in (height, width))
        return rows * columns * self.channels * self.dtype.itemsize

    def of(self, loss: nn.Module, features: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.floating]]:
        """Make the map, H x W x C.

        Args:
            loss: one that compares this summary.
            features: of an image, 1 x D x H x W.

        Raises:
            InputError: `teacher.not-finite`: values that are not finite, or too large to be kept.
        """
        with torch.autocast(features.device.type, enabled=False):
            summary = summary_of(loss, upcast(features))
        with np.errstate(over="ignore"):  # told below
            found = summary[0].permute(1, 2, 0).cpu().numpy().astype(self.dtype)
        if not np.isfinite(found).all():
            raise InputError(
                f"{self.feature}: has values that are not finite, or above {np.finfo(self.dtype).max:.3g}; check the "
                "weights and value_range of the teacher, or set distill.cache_limit: 0",
                code="teacher.not-finite",
            )
        return found


def cached_map(
    loss: nn.Module, teacher: int, feature: str, shape: tuple[int, ...], size: tuple[int, ...]
) -> CachedMap | None:
    """What a loss compares of a feature; None if the feature is no map of the image at one ratio of sizes.

    Args:
        loss: of two feature maps.
        teacher: number of the teacher.
        feature: its hook.
        shape: of the feature, N x C x H x W, for images of this size.
        size: height and width of these, LR px.
    """
    steps = {Fraction(side, part) for side, part in zip(size, shape[2:], strict=True)}
    if len(steps) > 1:
        return None
    cell = loss.cell if isinstance(loss, FeatureLoss) else 1
    channels = summary_of(loss, torch.zeros(1, shape[1], cell, cell)).shape[1]
    name = loss.summary_name if isinstance(loss, FeatureLoss) else WHOLE
    return CachedMap(teacher, feature, name, cell, steps.pop(), channels)


def summary_of(loss: nn.Module, features: Tensor) -> Tensor:
    """What a loss compares of features: its summary, or else all of them."""
    return loss.summary(features) if isinstance(loss, FeatureLoss) else features


def against(loss: nn.Module, student: Tensor, summary: Tensor) -> Tensor:
    """The loss of the student's features for a cached summary of the teacher's."""
    if isinstance(loss, FeatureLoss):
        return loss.against(student, summary)
    found: Tensor = loss(student, summary)
    return found


def fits_patches(maps: list[CachedMap], sides: list[int]) -> bool:
    """Whether patches with these sides, LR px, are made of whole px of all maps."""
    return not any(side % each.pitch for each, side in itertools.product(maps, sides))
