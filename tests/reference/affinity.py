"""Affinity losses, pair by pair from the formulas, on N x C x H x W arrays, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

Place = tuple[int, int]


def pooled(plane: np.ndarray, side: Place, how: str) -> np.ndarray:
    """Windows from the upper left corner; those at the right and lower edge hold what is left."""
    rows, columns = (math.ceil(length / step) for length, step in zip(plane.shape, side, strict=True))
    out = np.empty((rows, columns))
    for i, j in np.ndindex(rows, columns):
        part = plane[i * side[0] : (i + 1) * side[0], j * side[1] : (j + 1) * side[1]]
        out[i, j] = part.max() if how == "max" else sum(part.ravel()) / part.size
    return out


def nodes(features: np.ndarray, side: Place, how: str) -> np.ndarray:
    return np.array([[pooled(plane, side, how) for plane in sample] for sample in features.astype(np.float64)])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = math.sqrt(sum(a * a)) * math.sqrt(sum(b * b))
    return sum(a * b) / lengths if lengths else 0.0


def euclidean(a: np.ndarray, b: np.ndarray) -> float:
    return math.sqrt(sum((a - b) ** 2))


def cost(difference: float, distance: str) -> float:
    return abs(difference) if distance == "l1" else difference**2


def rbf(gamma: float) -> Callable[[np.ndarray, np.ndarray], float]:
    """exp(-gamma |x - y|^2) of vectors of length 1."""

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        one, other = (each / math.sqrt(sum(each * each)) for each in (a, b))
        return math.exp(-gamma * sum((one - other) ** 2))

    return similarity


def nearest(features: np.ndarray, alpha: int | None) -> Iterator[tuple[Place, Place]]:
    """Each place of a map with the `alpha` nearest, by Chebyshev's distance, then Euclid's, then from top to bottom."""
    places = list(np.ndindex(*features.shape[2:]))
    for i, j in places:
        near = sorted(places, key=lambda p: (max(abs(p[0] - i), abs(p[1] - j)), math.dist(p, (i, j)), p))
        for other in near[:alpha]:
            yield (i, j), other


def beside(features: np.ndarray) -> Iterator[tuple[Place, Place]]:
    """Ordered pairs of places of a map that touch, corner to corner too."""
    places = list(np.ndindex(*features.shape[2:]))
    for a, b in itertools.product(places, places):
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1:
            yield a, b


def mean_over_pairs(
    student: np.ndarray,
    teacher: np.ndarray,
    pairs: list[tuple[Place, Place]],
    similarity: Callable[[np.ndarray, np.ndarray], float],
    distance: str,
) -> float:
    costs = []
    for s, t in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        for (i, j), (k, m) in pairs:
            difference = similarity(s[:, i, j], s[:, k, m]) - similarity(t[:, i, j], t[:, k, m])
            costs.append(cost(difference, distance))
    return sum(costs) / len(costs)


def pairwise(
    student: np.ndarray,
    teacher: np.ndarray,
    *,
    alpha: int | None = None,
    beta: int = 1,
    pooling: str = "avg",
    distance: str = "l2",
    gamma: float | None = None,
) -> float:
    s, t = (nodes(features, (beta, beta), pooling) for features in (student, teacher))
    return mean_over_pairs(s, t, list(nearest(s, alpha)), cosine if gamma is None else rbf(gamma), distance)


def skd_code(student: np.ndarray, teacher: np.ndarray) -> float:
    """Lengths + 1e-8; the sum of squares / nodes^2 / batch."""
    side = (max(student.shape[2] // 2, 1), max(student.shape[3] // 2, 1))
    s, t = (nodes(features, side, "max") for features in (student, teacher))
    s, t = (f / (np.sqrt((f**2).sum(1, keepdims=True)) + 1e-8) for f in (s, t))
    places = list(np.ndindex(s.shape[2:]))
    total = 0.0
    for n, (i, j), (k, m) in itertools.product(range(len(s)), places, places):
        total += (sum(t[n, :, i, j] * t[n, :, k, m]) - sum(s[n, :, i, j] * s[n, :, k, m])) ** 2
    return total / len(places) ** 2 / len(s)


def local(student: np.ndarray, teacher: np.ndarray, kind: str, distance: str) -> float:
    pairs = list(beside(student))
    return mean_over_pairs(student, teacher, pairs, cosine if kind == "cosine" else euclidean, distance)


def channel(student: np.ndarray, teacher: np.ndarray, distance: str) -> float:
    costs = []
    for s, t in zip(student.astype(np.float64), teacher.astype(np.float64), strict=True):
        for i, j in np.ndindex(len(s), len(s)):
            costs.append(cost(cosine(s[i].ravel(), s[j].ravel()) - cosine(t[i].ravel(), t[j].ravel()), distance))
    return sum(costs) / len(costs)


def instance(student: np.ndarray, teacher: np.ndarray, distance: str) -> float:
    def rows(features: np.ndarray) -> list[list[float]]:
        samples = [sample.ravel() for sample in features.astype(np.float64)]
        grams = [[float(np.dot(one, other)) for other in samples] for one in samples]
        return [[value / np.sqrt(sum(v * v for v in row)) for value in row] for row in grams]

    s, t = rows(student), rows(teacher)
    costs = [cost(s[i][j] - t[i][j], distance) for i, j in np.ndindex(len(s), len(s))]
    return sum(costs) / len(costs)


def instance_cosine(student: np.ndarray, teacher: np.ndarray, distance: str) -> float:
    s, t = student.astype(np.float64), teacher.astype(np.float64)
    costs = [
        cost(cosine(s[i].ravel(), s[j].ravel()) - cosine(t[i].ravel(), t[j].ravel()), distance)
        for i, j in np.ndindex(len(s), len(s))
    ]
    return sum(costs) / len(costs)
