"""Affinity losses: similarities of positions, channels or samples of a student's features, matched with a teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.errors import InputError
from imdn_kd.losses.base import OUT_OF_RANGE, FeatureLoss, check_choice
from imdn_kd.losses.pairwise_ops import DISTANCES, UNIT_VECTORS, all_pairs, l2_normalize, nearest_pairs
from imdn_kd.registry import LOSSES

PRESETS = ("paper", "skd_code", "fakd")
"""Published settings of `PairwiseLoss`."""
POOLINGS = ("avg", "max")
AFFINITIES = ("cosine", "rbf")


@LOSSES.register
class PairwiseLoss(FeatureLoss):
    """Pair-wise distillation: similarities of pairs of positions, matched with the teacher's.

    Structured knowledge distillation (Liu et al., CVPR 2019 and TPAMI 2020, https://arxiv.org/abs/1903.04197, section
    3.1; the latter studies connections and node sizes). Features are pooled to nodes; the affinity of two nodes is the
    cosine of their vectors; the loss is the mean, over the samples and the ordered pairs of connected nodes, of the
    difference of the affinities. Each node is connected with itself, too. A node whose vector is 0 has a cosine of 0
    with all and gets no gradient. Student and teacher may differ in width. No matrix of all pairs is kept, so memory
    grows with the features only; time grows with the nodes where all are connected with `l2` and cosines, else with the
    number of pairs.

    The graph is the paper's static affinity graph, of places alone, not of features. A node is connected with
    "top-alpha near nodes according to spatial distance (here we use the Chebyshev distance)". Of nodes as near, those
    at the smaller Euclidean distance come first here, then the upper, then the left ones. Near the border the nearest
    nodes lie further inside.

    Presets are published settings; each is listed with its published weight, which you give to the loss term:

    - `paper` (weight 10): `beta: 2`, average pooling, all pairs, `l2`, the best for segmentation.
    - `skd_code` (weight 0.5): the released code. Windows of half the height and width (rounded down), so 2 x 2 nodes,
      or 3 where a side is odd; maximum pooling, all pairs, `l2`; vectors are divided by their length + 1e-8, and this
      length counts as a constant in the gradient.
    - `fakd` (weight 10 on 0..255): `beta: 1`, all pairs, `l1`; see `SpatialAffinityLoss`.

    Args:
        alpha: with how many nodes each one is connected, the nearest, itself the first of them; 2 or more. 9 is a
            window of 3x3 nodes. All nodes are connected if left out, or if there are no more.
        beta: side of a node in pixels of the feature map, 1 or more; 1 if left out. Where it does not divide the
            height or width, the last nodes are smaller: the mean or maximum of the pixels that are left.
        pooling: `avg` (if left out) or `max`.
        distance: `l2` (if left out), the squared difference, or `l1`, the absolute one.
        affinity: `cosine` (if left out), or `rbf`: exp(-gamma |x - y|^2) of the unit vectors x and y of two nodes, the
            kernel of correlation congruence (Peng et al., ICCV 2019, https://arxiv.org/abs/1904.01802), there between
            samples; it weighs the pairs that are alike more.
        gamma: of `rbf`, above 0; 0.4 if left out, as published.
        preset: `paper`, `skd_code` or `fakd`, instead of all other arguments.

    Raises:
        InputError: a value that is not among these, or a preset beside other arguments.
    """

    def __init__(
        self,
        *,
        alpha: int | None = None,
        beta: int | None = None,
        pooling: str | None = None,
        distance: str | None = None,
        affinity: str | None = None,
        gamma: float | None = None,
        preset: str | None = None,
    ) -> None:
        super().__init__()
        fields = {
            "alpha": alpha,
            "beta": beta,
            "pooling": pooling,
            "distance": distance,
            "affinity": affinity,
            "gamma": gamma,
        }
        given = [name for name, value in fields.items() if value is not None]
        if preset is not None:
            check_choice("PairwiseLoss", "preset", preset, PRESETS)
        if preset is not None and given:
            raise InputError(
                f"PairwiseLoss has the preset {preset!r} and also {', '.join(given)}; give one of both",
                code="loss.preset-and-options",
            )
        for name, value, least in (("alpha", alpha, 2), ("beta", beta, 1)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
                raise InputError(
                    f"{name} of PairwiseLoss is {value!r}; give a whole number, {least} or more", code=OUT_OF_RANGE
                )
        check_choice("PairwiseLoss", "affinity", affinity or "cosine", AFFINITIES)
        if gamma is not None and affinity != "rbf":
            raise InputError(
                "gamma of PairwiseLoss has no effect on cosines; leave it out, or take affinity: rbf",
                code="loss.option-without-effect",
            )
        if gamma is not None and not 0 < gamma < math.inf:
            raise InputError(f"gamma of PairwiseLoss is {gamma}; give a number above 0, as 0.4", code=OUT_OF_RANGE)
        self.gamma = None if affinity != "rbf" else 0.4 if gamma is None else gamma
        self.pooling = pooling or ("max" if preset == "skd_code" else "avg")
        check_choice("PairwiseLoss", "pooling", self.pooling, POOLINGS)
        self.distance = distance or ("l1" if preset == "fakd" else "l2")
        check_choice("PairwiseLoss", "distance", self.distance, DISTANCES)
        self.preset = preset
        self.alpha = alpha
        self.beta = beta or (2 if preset == "paper" else 1)
        # The nodes of the released code depend on the size of the patch.
        self._by_halves = preset == "skd_code"
        if not self._by_halves:
            self.cell = self.beta
            self.summary_name = UNIT_VECTORS if self.beta == 1 else f"{UNIT_VECTORS} of {self.pooling} {self.beta}"

    def summary(self, features: Tensor) -> Tensor:
        """Unit vectors of the nodes, N x C x rows x columns; with `skd_code` the maps, whose size nodes depend on."""
        return features if self._by_halves else l2_normalize(self._pooled(features, (self.beta, self.beta)))

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        if self._by_halves:
            student, teacher = self._halves(student), self._halves(teacher)
        # In one memory format, that equal features have exactly equal affinities.
        student, teacher = student.contiguous(), teacher.contiguous()
        if self.alpha is None or self.alpha >= math.prod(student.shape[2:]):
            return all_pairs(student.flatten(2), teacher.flatten(2), self.distance, gamma=self.gamma)
        return nearest_pairs(student, teacher, self.distance, count=self.alpha, gamma=self.gamma)

    def _halves(self, features: Tensor) -> Tensor:
        """The nodes of the released code, each half as high and wide as the map."""
        height, width = features.shape[2:]
        return _almost_unit(self._pooled(features, (max(height // 2, 1), max(width // 2, 1))))

    def _pooled(self, features: Tensor, side: tuple[int, int]) -> Tensor:
        # In one memory format, that equal features have exactly equal nodes.
        features = features.contiguous()
        if side == (1, 1):
            return features
        pool = functional.max_pool2d if self.pooling == "max" else functional.avg_pool2d
        return pool(features, side, ceil_mode=True)


@LOSSES.register
class SpatialAffinityLoss(PairwiseLoss):
    """Spatial affinity of FAKD (He et al., ICIP 2020, https://doi.org/10.1109/ICIP40778.2020.9190917).

    Mean absolute difference of the cosines of all pairs of pixels: `PairwiseLoss` with the preset `fakd`. Published
    with a weight of 10 beside half an L1 loss to the ground truth and half one to the teacher's output, on images of
    0..255 and summed over three features: 10 / 255 * 3 = .118 for images of 0..1 and the mean of the features. Student
    and teacher may differ in width. Time grows with the square of the pixels.
    """

    def __init__(self) -> None:
        super().__init__(preset="fakd")


class _AffinityLoss(FeatureLoss):
    """A loss that compares affinities by a `distance`, l1 or l2."""

    def __init__(self, *, distance: str = "l1") -> None:
        super().__init__()
        check_choice(type(self).__name__, "distance", distance, DISTANCES)
        self.distance = distance


@LOSSES.register
class ChannelAffinityLoss(_AffinityLoss):
    """Channel affinity of FAKD (He et al., ICIP 2020, https://doi.org/10.1109/ICIP40778.2020.9190917).

    Mean difference of the C x C cosines of the channels. A channel is the vector of all its pixels; one that is 0 has
    an affinity of 0 and gets no gradient. Each channel is paired with itself, too. Student and teacher must be of the
    same width.

    Args:
        distance: `l1`, the absolute difference, or `l2`, the squared one.

    Raises:
        InputError: another `distance`.
    """

    requires_same_channels = True

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        return all_pairs(_channels(student), _channels(teacher), self.distance)


@LOSSES.register
class InstanceAffinityLoss(_AffinityLoss):
    """Instance affinity of FAKD (He et al., ICIP 2020, https://doi.org/10.1109/ICIP40778.2020.9190917).

    The mean difference of the B x B inner products of the samples of a batch, each row divided by its L2 norm. With
    `distance: l2` it is similarity-preserving distillation (Tung and Mori, ICCV 2019,
    https://arxiv.org/abs/1907.09682). A sample is the vector of all its features, and is paired with itself, too: a
    batch of one gives 0. Student and teacher may differ in width.

    Args:
        distance: `l1`, the absolute difference, as in FAKD, or `l2`, the squared one.

    Raises:
        InputError: another `distance`.

    Attributes:
        compares_samples: the loss depends on which samples make up the batch, and on how many.
    """

    compares_samples = True

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        difference = _gram_rows(student) - _gram_rows(teacher)
        return difference.abs().mean() if self.distance == "l1" else difference.square().mean()


@LOSSES.register
class InstanceCosineLoss(_AffinityLoss):
    """Mean difference of the cosines of the samples of a batch; see `InstanceAffinityLoss` for the published form.

    A sample is the vector of all its features; one that is 0 has an affinity of 0 and gets no gradient. Each sample is
    paired with itself, too: a batch of one gives 0. Student and teacher may differ in width.

    Args:
        distance: `l1`, the absolute difference, or `l2`, the squared one.

    Raises:
        InputError: another `distance`.

    Attributes:
        compares_samples: the loss depends on which samples make up the batch, and on how many.
    """

    compares_samples = True

    def compute(self, student: Tensor, teacher: Tensor) -> Tensor:
        """See `FeatureLoss`."""
        return all_pairs(_samples(student), _samples(teacher), self.distance)


def _almost_unit(features: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(features.detach(), dim=1, keepdim=True)
    return features / (length + 1e-8)


def _channels(features: Tensor) -> Tensor:
    return l2_normalize(features.contiguous().flatten(2).mT)


def _samples(features: Tensor) -> Tensor:
    return l2_normalize(features.contiguous().flatten(1).mT[None])


def _gram_rows(features: Tensor) -> Tensor:
    vectors = features.flatten(1)
    # Row by row rather than as a matrix product, whose gradient would be computed in bf16 under autocast.
    rows = [(vectors * vector).sum(1) for vector in vectors]
    return functional.normalize(torch.stack(rows), dim=1)
