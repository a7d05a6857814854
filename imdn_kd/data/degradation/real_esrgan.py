"""The second-order degradation of Real-ESRGAN (Wang et al., ICCVW 2021, https://arxiv.org/abs/2107.10833).

Blur, resizing, noise and JPEG, all this a second time, and a sinc filter before or after the last JPEG. JPEG is
Pillow's rather than a differentiable imitation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import get_args

import numpy as np

from imdn_kd.data.degradation.kernels import SHAPES, Kernel, blur_kernel, convolve, sinc_kernel
from imdn_kd.data.degradation.pixels import Floats, gaussian_noise, jpeg, poisson_noise, resize
from imdn_kd.data.degradation.ranges import Interpolation, Shape, drawn, one_of
from imdn_kd.data.degradation.real_esrgan_schema import KernelName, RealEsrgan

_MODES = get_args(Interpolation)
_SIZES = range(7, 22, 2)
_LARGE = 13


def real_esrgan(options: RealEsrgan, image: Floats, target: tuple[int, int], random: np.random.Generator) -> Floats:
    """The degraded image.

    Args:
        options: ranges and probabilities.
        image: H x W x C, 0 to 1.
        target: (height, width) of the result.
        random: what is drawn comes from it.
    """
    first, second = _round(options, ""), _round(options, "2")
    full = image.shape[:2]
    image = convolve(image, first.kernel(random))
    factor = first.factor(random)
    image = resize(image, _times(full, factor), one_of(_MODES, random))
    image = jpeg(first.noisy(image, random), first.quality(random))
    if random.random() < options.second_blur_prob:
        image = convolve(image, second.kernel(random))
    image = resize(image, _times(target, second.factor(random)), one_of(_MODES, random))
    image = second.noisy(image, random)
    sinc_first = random.random() < 0.5
    if not sinc_first:
        image = jpeg(image, second.quality(random))
    image = resize(image, target, one_of(_MODES, random))
    if random.random() < options.final_sinc_prob:
        image = convolve(image, sinc_kernel(one_of(_SIZES, random), random.uniform(math.pi / 3, math.pi)))
    if sinc_first:
        image = jpeg(image, second.quality(random))
    return image.clip(0, 1)


@dataclass(frozen=True)
class _Round:
    """The options of one of the two rounds, by their names without the 2, and what is drawn in it."""

    blur_kernel_size: int
    kernel_list: list[KernelName]
    kernel_prob: list[float]
    sinc_prob: float
    blur_sigma: list[float]
    betag_range: list[float]
    betap_range: list[float]
    resize_prob: list[float]
    resize_range: list[float]
    gaussian_noise_prob: float
    noise_range: list[float]
    poisson_scale_range: list[float]
    gray_noise_prob: float
    jpeg_range: list[float]

    def kernel(self, random: np.random.Generator) -> Kernel:
        size = one_of([side for side in _SIZES if side <= self.blur_kernel_size], random)
        if random.random() < self.sinc_prob:
            # Small kernels cannot hold the longer waves.
            return sinc_kernel(size, random.uniform(math.pi / (3 if size < _LARGE else 5), math.pi))
        name = one_of(self.kernel_list, random, self.kernel_prob)
        sigma_x = drawn(self.blur_sigma, random)
        sigma_y, angle = sigma_x, 0.0
        if name.endswith("aniso"):
            sigma_y, angle = drawn(self.blur_sigma, random), random.uniform(-math.pi, math.pi)
        shape: Shape = next((shape for shape in SHAPES if name.startswith(shape)), "gaussian")
        if shape == "gaussian":
            return blur_kernel(shape, size, sigma_x, sigma_y, angle)
        low, high = self.betag_range if shape == "generalized" else self.betap_range
        beta = random.uniform(low, 1) if random.random() < 0.5 else random.uniform(1, high)
        return blur_kernel(shape, size, sigma_x, sigma_y, angle, beta)

    def factor(self, random: np.random.Generator) -> float:
        low, high = self.resize_range
        change = one_of(("up", "down", "keep"), random, self.resize_prob)
        if change == "up":
            return random.uniform(1, high)
        return random.uniform(low, 1) if change == "down" else 1.0

    def noisy(self, image: Floats, random: np.random.Generator) -> Floats:
        gaussian, grey = (random.random() < each for each in (self.gaussian_noise_prob, self.gray_noise_prob))
        if gaussian:
            image = gaussian_noise(image, drawn(self.noise_range, random) / 255, random, grey=grey)
        else:
            image = poisson_noise(image, drawn(self.poisson_scale_range, random), random, grey=grey)
        return image.clip(0, 1)

    def quality(self, random: np.random.Generator) -> int:
        return round(drawn(self.jpeg_range, random))


def _round(options: RealEsrgan, end: str) -> _Round:
    return _Round(**{each.name: getattr(options, each.name + end) for each in fields(_Round)})


def _times(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
