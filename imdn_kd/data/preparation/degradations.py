"""How low-quality images are made of originals: shrinking, blur, noise and JPEG, one after the other.

Every step takes and gives 8-bit images, as files between them would.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Options
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage

Floats = npt.NDArray[np.float32]


def _check_range(value: float | list[float]) -> float | list[float]:
    low, high = _bounds(value)
    if not 0 <= low <= high <= 255:
        raise PydanticCustomError("range", "give a number from 0 to 255, or two, [lowest, highest]")
    return value


Range = Annotated[float | Annotated[list[float], Field(min_length=2, max_length=2)], AfterValidator(_check_range)]
"""A number, or the bounds between which one is drawn for each image."""


class Bicubic(Options):
    """Shrink by the factor, as MATLAB does."""

    type: Literal["bicubic"] = "bicubic"

    def apply(self, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
        """`image` with sides that are multiples of the factor's numerator."""
        if scale == 1:
            return image
        height, width = (side // scale.numerator * scale.denominator for side in image.shape[:2])
        return imresize(image, size=(height, width))


class Blur(Options):
    """Gaussian blur.

    Attributes:
        sigma: standard deviation, px of the image at this place in the list.
    """

    type: Literal["blur"]
    sigma: Range

    def apply(self, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
        """Blur each channel, with mirrored borders."""
        from scipy.ndimage import gaussian_filter

        sigma = _drawn(self.sigma, random)
        smooth: Floats = gaussian_filter(image.astype(np.float32), (sigma, sigma, 0), mode="reflect")
        return np.rint(smooth).astype(np.uint8)


class Noise(Options):
    """Gaussian noise, independent for each channel.

    Attributes:
        sigma: standard deviation, levels of 255.
    """

    type: Literal["noise"]
    sigma: Range

    def apply(self, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
        """Add the noise, round and clamp."""
        sigma = np.float32(_drawn(self.sigma, random))
        noisy = image + sigma * random.standard_normal(image.shape, np.float32)
        return np.rint(noisy).clip(0, 255).astype(np.uint8)


class Jpeg(Options):
    """Write as JPEG and read again.

    Attributes:
        quality: 1 to 100, as Pillow counts.
    """

    type: Literal["jpeg"]
    quality: Range

    def apply(self, image: RgbImage, scale: Fraction, random: np.random.Generator) -> RgbImage:
        """Through memory, with the chroma subsampling that Pillow chooses."""
        buffer = BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=round(_drawn(self.quality, random)))
        return np.array(Image.open(buffer))

    @field_validator("quality")
    @classmethod
    def _check(cls, value: float | list[float]) -> float | list[float]:
        low, high = _bounds(value)
        if low < 1 or high > 100:
            raise PydanticCustomError("quality", "quality lies between 1 and 100")
        return value


Step = Bicubic | Blur | Noise | Jpeg


def degrade(image: RgbImage, scale: Fraction, steps: Sequence[Step], key: str) -> RgbImage:
    """Make the low-quality image of an original.

    Args:
        image: H x W x 3, uint8; both sides multiples of the numerator of the factor.
        scale: the factor.
        steps: applied in this order; `Bicubic` among them, unless the factor is 1.
        key: what the random numbers depend on: the same key gives the same image.
    """
    # Philox gives the same stream everywhere; `Generator` might change its methods between versions of numpy, which
    # the manifest of a store names.
    random = np.random.Generator(np.random.Philox(zlib.crc32(key.encode())))
    for step in steps:
        image = step.apply(image, scale, random)
    return image


def describe(steps: Sequence[Options]) -> list[dict[str, Any]]:
    """The steps as JSON."""
    return [step.model_dump(mode="json") for step in steps]


def _bounds(value: float | list[float]) -> tuple[float, float]:
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def _drawn(value: float | list[float], random: np.random.Generator) -> float:
    low, high = _bounds(value)
    return low if low == high else float(random.uniform(low, high))
