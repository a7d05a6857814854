"""The plain family as a slow function of its weights, pixel by pixel in numpy: no modules, no shared code."""

from __future__ import annotations

import numpy as np


def convolved(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """3x3 correlation of C x H+2 x W+2, without padding."""
    height, width = x.shape[1] - 2, x.shape[2] - 2
    out = np.zeros((len(weight), height, width))
    for row in range(height):
        for column in range(width):
            out[:, row, column] = np.tensordot(weight, x[:, row : row + 3, column : column + 3], 3)
    return out


def cells(image: np.ndarray, side: int) -> np.ndarray:
    """Cells of pixels as channels: c x s x s of them for each channel c, rows first."""
    return np.stack(
        [plane[row::side, column::side] for plane in image for row in range(side) for column in range(side)]
    )


def pixels(channels: np.ndarray, side: int) -> np.ndarray:
    """What `cells` was given."""
    count, height, width = len(channels) // side**2, *channels.shape[1:]
    image = np.zeros((count, height * side, width * side))
    for number, plane in enumerate(channels):
        channel, row, column = number // side**2, number % side**2 // side, number % side
        image[channel, row::side, column::side] = plane
    return image


def plain(image: np.ndarray, weights: dict[str, np.ndarray], scale: int) -> np.ndarray:
    """C x H x W to C x sH x sW, in float64."""
    weights = {key: value.astype(np.float64) for key, value in weights.items()}
    head = weights["head.0.weight"]
    head = head - head.mean((2, 3), keepdims=True)
    x = np.maximum(convolved(np.pad(image, ((0, 0), (1, 1), (1, 1)), "edge"), head), 0)
    for number in range(sum(key.startswith("body.") and key.endswith(".0.weight") for key in weights)):
        padded, weight = np.pad(x, ((0, 0), (1, 1), (1, 1))), weights[f"body.{number}.0.weight"]
        point = weights.get(f"body.{number}.1.weight")
        if point is None:
            x = convolved(padded, weight)
        else:
            alone = [convolved(plane[None], kernel[None])[0] for plane, kernel in zip(padded, weight, strict=True)]
            x = np.tensordot(point[:, :, 0, 0], np.stack(alone), 1)
        x = np.maximum(x, 0)
    detail = convolved(np.pad(x, ((0, 0), (1, 1), (1, 1))), weights["tail.weight"])
    sr = np.repeat(np.repeat(image, scale, 1), scale, 2).astype(np.float64)
    for channel in range(len(image)):
        for row in range(scale):
            for column in range(scale):
                sr[channel, row::scale, column::scale] += detail[channel * scale**2 + row * scale + column]
    return sr
