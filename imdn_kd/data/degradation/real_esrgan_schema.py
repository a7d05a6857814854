"""Options of the second-order degradation of Real-ESRGAN, with the names and defaults of its option files."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options
from imdn_kd.data.degradation.ranges import Pair, Probability

KernelName = Literal["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
Thirds = Annotated[list[Probability], Field(min_length=3, max_length=3)]
"""Probabilities of enlarging, shrinking and keeping."""


def _default_kernels() -> list[KernelName]:
    return list(get_args(KernelName))


def _default_shares() -> list[float]:
    return [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]


class RealEsrgan(Options):
    """The second-order degradation of Real-ESRGAN, https://github.com/xinntao/Real-ESRGAN.

    Ranges are [lowest, highest]; names that end with 2 are those of the second round.

    Attributes:
        blur_kernel_size: largest side of the kernels, odd, px; the side is drawn from 7 up.
        kernel_list: kernels to draw from.
        kernel_prob: how often each.
        sinc_prob: probability of a sinc filter instead.
        blur_sigma: standard deviation, px.
        betag_range: exponent of the generalised Gaussian.
        betap_range: exponent of the plateau.
        blur_kernel_size2: as above.
        kernel_list2: as above.
        kernel_prob2: as above.
        sinc_prob2: as above.
        blur_sigma2: as above.
        betag_range2: as above.
        betap_range2: as above.
        final_sinc_prob: probability of the last sinc filter.
        resize_prob: probabilities of enlarging, shrinking and keeping.
        resize_range: factors.
        gaussian_noise_prob: probability of Gaussian noise; otherwise there is shot noise.
        noise_range: standard deviation, levels of 255.
        poisson_scale_range: factors of the shot noise.
        gray_noise_prob: probability that noise is the same in all channels.
        jpeg_range: quality.
        second_blur_prob: probability of the second blur.
        resize_prob2: as above.
        resize_range2: factors, of the size of the result.
        gaussian_noise_prob2: as above.
        noise_range2: as above.
        poisson_scale_range2: as above.
        gray_noise_prob2: as above.
        jpeg_range2: as above.
    """

    type: Literal["real_esrgan"]
    blur_kernel_size: Integer = Field(21, ge=7, le=21)
    kernel_list: list[KernelName] = Field(default_factory=_default_kernels)
    kernel_prob: list[float] = Field(default_factory=_default_shares)
    sinc_prob: Probability = 0.1
    blur_sigma: Pair = Field(default_factory=lambda: [0.2, 3.0])
    betag_range: Pair = Field(default_factory=lambda: [0.5, 4.0])
    betap_range: Pair = Field(default_factory=lambda: [1.0, 2.0])
    blur_kernel_size2: Integer = Field(21, ge=7, le=21)
    kernel_list2: list[KernelName] = Field(default_factory=_default_kernels)
    kernel_prob2: list[float] = Field(default_factory=_default_shares)
    sinc_prob2: Probability = 0.1
    blur_sigma2: Pair = Field(default_factory=lambda: [0.2, 1.5])
    betag_range2: Pair = Field(default_factory=lambda: [0.5, 4.0])
    betap_range2: Pair = Field(default_factory=lambda: [1.0, 2.0])
    final_sinc_prob: Probability = 0.8
    resize_prob: Thirds = Field(default_factory=lambda: [0.2, 0.7, 0.1])
    resize_range: Pair = Field(default_factory=lambda: [0.15, 1.5])
    gaussian_noise_prob: Probability = 0.5
    noise_range: Pair = Field(default_factory=lambda: [1.0, 30.0])
    poisson_scale_range: Pair = Field(default_factory=lambda: [0.05, 3.0])
    gray_noise_prob: Probability = 0.4
    jpeg_range: Pair = Field(default_factory=lambda: [30.0, 95.0])
    second_blur_prob: Probability = 0.8
    resize_prob2: Thirds = Field(default_factory=lambda: [0.3, 0.4, 0.3])
    resize_range2: Pair = Field(default_factory=lambda: [0.3, 1.2])
    gaussian_noise_prob2: Probability = 0.5
    noise_range2: Pair = Field(default_factory=lambda: [1.0, 25.0])
    poisson_scale_range2: Pair = Field(default_factory=lambda: [0.05, 2.5])
    gray_noise_prob2: Probability = 0.4
    jpeg_range2: Pair = Field(default_factory=lambda: [30.0, 95.0])

    @model_validator(mode="after")
    def _agree(self) -> RealEsrgan:
        for names, shares in ((self.kernel_list, self.kernel_prob), (self.kernel_list2, self.kernel_prob2)):
            if len(names) != len(shares) or not sum(shares) > 0 or min(shares) < 0:
                raise PydanticCustomError(
                    "kernels", "kernel_list and kernel_prob need the same length, and some weight"
                )
        for low, high in (self.resize_range, self.resize_range2):
            if not 0 < low <= 1 <= high:
                raise PydanticCustomError("resize_range", "resize_range goes from below 1 to above 1")
        for low, high in (self.jpeg_range, self.jpeg_range2):
            if low < 1 or high > 100:
                raise PydanticCustomError("quality", "quality lies between 1 and 100")
        if min(self.blur_sigma + self.blur_sigma2) <= 0:
            raise PydanticCustomError("blur_sigma", "a sigma is above 0")
        return self
