"""Local similarity loss: similarities of pixels to their neighbours, matched with the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.losses.base import FeatureLoss, check_choice
from imdn_kd.losses.pairwise_ops import DISTANCES, UNIT_VECTORS, l2_normalize, neighbour_pairs, neighbours
from imdn_kd.registry import LOSSES

KINDS = ("cosine", "distance")
"""Similarities of two pixels."""


@LOSSES.register
class LocalSimilarityLoss(FeatureLoss):
    """Similarity of each pixel to its 8 neighbours (Xie et al., BMVC 2018, https://arxiv.org/abs/1810.08476).

    Mean, over the samples and the pairs of a pixel and one of its neighbours inside the map, of the difference of the
    similarities. 0 for a map of one pixel, which has no neighbours. Student and teacher may differ in width, but a
    Euclidean distance, unlike a cosine, grows with the width and with the scale of the features.

    Args:
        kind: `cosine` of the vectors of two pixels, where one that is 0 has a cosine of 0 and gets no gradient, or
            their Euclidean `distance`.
        distance: `l2`, the squared difference of the similarities, or `l1`, the absolute one.

    Raises:
        InputError: another `kind` or `distance`.
    """

    def __init__(self, *, kind: str = "cosine", distance: str = "l2") -> None:
        super().__init__()
        check_choice("LocalSimilarityLoss", "kind", kind, KINDS)
        check_choice("LocalSimilarityLoss", "distance", distance, DISTANCES)
        self.kind = kind
        self.distance = distance
        if kind == "cosine":
            self.summary_name = UNIT_VECTORS

    def summary(self, features: Tensor) -> Tensor:
        """Unit vectors of the pixels, N x C x H x W; for distances, the maps."""
        return l2_normalize(features.contiguous()) if self.kind == "cosine" else features

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        student, teacher = student.contiguous(), teacher.contiguous()
        if self.kind == "cosine":
            return neighbour_pairs(student, teacher, self.distance)
        cost = functional.l1_loss if self.distance == "l1" else functional.mse_loss
        total, count = student[..., :0].sum(), 0
        for here, there in neighbours(student.shape[2], student.shape[3]):
            ours, theirs = (torch.linalg.vector_norm(f[here] - f[there], dim=1) for f in (student, teacher))
            total = total + cost(ours, theirs, reduction="sum")
            count += ours.numel()
        return total / max(count, 1)
