"""Losses between features, and between bands of images, value by value from the formulas, in float64."""

from __future__ import annotations

import math

import numpy as np

from tests.reference.losses import half_spectrum


def distance(one: np.ndarray, other: np.ndarray, kind: str) -> float:
    differences = [abs(float(a) - float(b)) for a, b in zip(one.ravel(), other.ravel(), strict=True)]
    return sum(d if kind == "l1" else d * d for d in differences) / len(differences)


def statistic(values: np.ndarray, kind: str, p: float) -> float:
    numbers = [float(v) for v in values.ravel()]
    mean = sum(numbers) / len(numbers)
    if kind == "power":
        return math.prod([mean] * int(p))
    if kind == "mean_power":
        return sum(math.prod([v] * int(p)) for v in numbers) / len(numbers)
    if kind == "absolute_power":
        return sum(math.pow(abs(v), p) for v in numbers) / len(numbers)
    if kind == "std":
        return math.sqrt(sum((v - mean) ** 2 for v in numbers) / len(numbers))
    return {"mean": mean, "max": max(numbers), "min": min(numbers)}[kind]


def statistics(student: np.ndarray, teacher: np.ndarray, kind: str, p: float, over: str, norm: str) -> float:
    def reduced(maps: np.ndarray) -> np.ndarray:
        n, c, h, w = maps.shape
        if over == "channels":
            rows = [[statistic(maps[i, :, y, x], kind, p) for y in range(h) for x in range(w)] for i in range(n)]
        else:
            rows = [[statistic(maps[i, k], kind, p) for k in range(c)] for i in range(n)]
        return np.array(rows)

    return distance(reduced(student), reduced(teacher), norm)


def attention(student: np.ndarray, teacher: np.ndarray, p: float, form: str) -> float:
    def mapped(maps: np.ndarray) -> list[float]:
        sums = [sum(abs(float(v)) ** p for v in maps[:, y, x]) for y, x in np.ndindex(maps.shape[1:])]
        norm = math.sqrt(sum(s * s for s in sums))
        return [s / norm if norm else 0.0 for s in sums]

    losses = []
    for one, other in zip(student, teacher, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(mapped(one), mapped(other), strict=True)]
        losses.append(math.sqrt(sum(squares)) if form == "paper" else sum(squares) / len(squares))
    return sum(losses) / len(losses)


def channel_distributions(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    def softmax(values: np.ndarray) -> list[float]:
        exponentials = [math.exp(float(v) / temperature) for v in values.ravel()]
        return [each / sum(exponentials) for each in exponentials]

    divergences = []
    for index in np.ndindex(student.shape[:2]):
        ours, theirs = softmax(student[index]), softmax(teacher[index])
        divergences.append(sum(t * math.log(t / s) for s, t in zip(ours, theirs, strict=True)))
    return temperature**2 * sum(divergences) / len(divergences)


def mmd(student: np.ndarray, teacher: np.ndarray, kernel: str) -> float:
    def unit(row: np.ndarray) -> np.ndarray:
        return row.ravel().astype(np.float64) / math.sqrt(sum(float(v) ** 2 for v in row.ravel()))

    losses = []
    for one, other in zip(student, teacher, strict=True):
        s, t = [unit(each) for each in one], [unit(each) for each in other]
        width = np.mean([((a - b) ** 2).sum() for a in s for b in t])
        apply = {
            "linear": lambda a, b: a @ b,
            "poly": lambda a, b: (a @ b) ** 2,
            "rbf": lambda a, b, width=width: math.exp(-((a - b) ** 2).sum() / (2 * width)),
        }[kernel]
        within = [np.mean([apply(a, b) for a in each for b in each]) for each in (s, t)]
        losses.append(sum(within) - 2 * np.mean([apply(a, b) for a in s for b in t]))
    return float(np.mean(losses))


def frequency_bands(sr: np.ndarray, gt: np.ndarray, weights: list[float]) -> float:
    height, width = sr.shape[2:]
    rings: list[list[float]] = [[] for _ in weights]
    for index in np.ndindex(sr.shape[:2]):
        difference = (half_spectrum(sr[index]) - half_spectrum(gt[index])) / math.sqrt(height * width)
        for u, v in np.ndindex(difference.shape):
            frequency = math.hypot(min(u, height - u) / height, v / width)
            # The margin is for the rounding of frequencies that lie on an edge.
            ring = min(int(frequency / 0.5 * len(weights) + 1e-9), len(weights) - 1)
            rings[ring] += [abs(difference[u, v].real), abs(difference[u, v].imag)]
    return sum(w * sum(ring) / len(ring) for w, ring in zip(weights, rings, strict=True) if ring)


def haar(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The low band, h x w, and the details, 3 x h x w, as products with the four patterns of the wavelet."""
    height, width = plane.shape
    low = np.empty((math.ceil(height / 2), math.ceil(width / 2)))
    details = np.empty((3, *low.shape))
    for y, x in np.ndindex(low.shape):
        rows = (2 * y, min(2 * y + 1, height - 1))
        columns = (2 * x, min(2 * x + 1, width - 1))
        block = np.array([[float(plane[i, j]) for j in columns] for i in rows])
        low[y, x] = (block * [[1, 1], [1, 1]]).sum() / 2
        for k, pattern in enumerate(([[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]])):
            details[k, y, x] = (block * pattern).sum() / 2
    return low, details


def wavelet(sr: np.ndarray, gt: np.ndarray, levels: int, low: float, high: float) -> float:
    ones = [plane.astype(float) for image in sr for plane in image]
    others = [plane.astype(float) for image in gt for plane in image]
    loss = 0.0
    for _ in range(levels):
        ones, details = zip(*map(haar, ones), strict=True)
        others, more = zip(*map(haar, others), strict=True)
        loss += high * distance(np.stack(details), np.stack(more), "l1")
    return loss + low * distance(np.stack(ones), np.stack(others), "l1")


def contrastive(
    student: np.ndarray, teacher: np.ndarray, negative: np.ndarray, space: str, eps: float, others: int = 0
) -> float:
    def seen(image: np.ndarray) -> np.ndarray:
        return image if space == "pixels" else np.stack([haar(plane)[1] for plane in image])

    ratios = []
    for number, (s, t) in enumerate(zip(student, teacher, strict=True)):
        negatives = [negative[(number + k) % len(negative)] for k in range(min(1 + others, len(negative)))]
        far = [distance(seen(s), seen(n), "l1") for n in negatives]
        ratios.append(distance(seen(s), seen(t), "l1") / (sum(far) / len(far) + eps))
    return sum(ratios) / len(ratios)


def flow(student: tuple[np.ndarray, np.ndarray], teacher: tuple[np.ndarray, np.ndarray]) -> float:
    """The mean squared difference of the matrices of two layers, which have C and D channels."""

    def matrix(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        out = np.empty((len(first), len(second)))
        for i, j in np.ndindex(*out.shape):
            products = [float(a) * float(b) for a, b in zip(first[i].ravel(), second[j].ravel(), strict=True)]
            out[i, j] = sum(products) / len(products)
        return out

    ours, theirs = (np.stack([matrix(*layers) for layers in zip(*each, strict=True)]) for each in (student, teacher))
    return distance(ours, theirs, "l2")


def likelihood(location: np.ndarray, spread: np.ndarray, teacher: np.ndarray, distribution: str) -> float:
    """The mean of -log p(teacher), without the constant of the density."""
    logs = []
    for m, s, t in zip(location.ravel(), np.broadcast_to(spread, location.shape).ravel(), teacher.ravel(), strict=True):
        m, s, t = float(m), float(s), float(t)
        if distribution == "gaussian":
            density = math.exp(-((t - m) ** 2) / (2 * s)) / math.sqrt(2 * math.pi * s)
            logs.append(math.log(density) + math.log(2 * math.pi) / 2)
        else:
            logs.append(math.log(math.exp(-abs(t - m) / s) / (2 * s)) + math.log(2))
    return -sum(logs) / len(logs)
