"""Degradations that make LR images: what an option file or the command line says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options, check_options
from imdn_kd.data.degradation.ranges import Interpolation, Probability, Range, Shape, bounds
from imdn_kd.data.degradation.real_esrgan_schema import RealEsrgan
from imdn_kd.errors import InputError


class Bicubic(Options):
    """Downscale by the scale, as MATLAB's `imresize` does; after `resize`, to the size of the LR image."""

    type: Literal["bicubic"] = "bicubic"


class Blur(Options):
    """Blur by a kernel; without `shape`, an isotropic Gaussian.

    Attributes:
        sigma: standard deviation, px of the image at this step.
        shape: `gaussian`, `generalized` or `plateau`, with a second sigma of the same range and a random angle.
        beta: exponent of the generalised Gaussian and the plateau.
        size: side of the kernel with a shape, odd, px.
        prob: probability of the step.
    """

    type: Literal["blur"]
    sigma: Range
    shape: Shape | None = None
    beta: Range = 1.0
    size: Integer = Field(21, ge=3, le=63)
    prob: Probability = 1.0

    @model_validator(mode="after")
    def _check(self) -> Blur:
        if self.size % 2 == 0:
            raise PydanticCustomError("kernel", "the side of a kernel is odd")
        if self.shape and bounds(self.sigma)[0] <= 0:
            raise PydanticCustomError("kernel", "the sigma of a shape is above 0")
        return self


class Sinc(Options):
    """A circular low-pass filter, which leaves rings.

    Attributes:
        cutoff: frequency, radians per px, up to pi.
        size: side of the kernel, odd, px.
        prob: probability of the step.
    """

    type: Literal["sinc"]
    cutoff: Range
    size: Integer = Field(21, ge=3, le=63)
    prob: Probability = 1.0

    @model_validator(mode="after")
    def _check(self) -> Sinc:
        low, high = bounds(self.cutoff)
        if self.size % 2 == 0 or low <= 0 or high > 3.1416:
            raise PydanticCustomError("kernel", "the side of a kernel is odd, and cutoff above 0 and at most pi")
        return self


class Resize(Options):
    """Resize by a factor, so that `bicubic`, which then brings it to the size of the LR image, finds another size.

    Attributes:
        factor: of both sides.
        mode: interpolation to draw from, as in PyTorch's `interpolate`.
        prob: probability of the step.
    """

    type: Literal["resize"]
    factor: Range
    mode: list[Interpolation] = Field(default_factory=lambda: list(get_args(Interpolation)), min_length=1)
    prob: Probability = 1.0

    @field_validator("factor")
    @classmethod
    def _check(cls, value: float | list[float]) -> float | list[float]:
        low, high = bounds(value)
        if low < 0.05 or high > 4:
            raise PydanticCustomError("factor", "factor lies between .05 and 4")
        return value


class Noise(Options):
    """Additive Gaussian noise, independent per channel.

    Attributes:
        sigma: standard deviation, levels of 255.
        grey_prob: probability that it is the same in all channels.
        prob: probability of the step.
    """

    type: Literal["noise"]
    sigma: Range
    grey_prob: Probability = 0.0
    prob: Probability = 1.0


class Poisson(Options):
    """Shot noise, as Real-ESRGAN has it.

    Attributes:
        scale: factor of the noise.
        grey_prob: probability that it is the same in all channels.
        prob: probability of the step.
    """

    type: Literal["poisson"]
    scale: Range
    grey_prob: Probability = 0.0
    prob: Probability = 1.0


class Jpeg(Options):
    """JPEG compression.

    Attributes:
        quality: 1 to 100, as in Pillow.
        prob: probability of the step.
    """

    type: Literal["jpeg"]
    quality: Range
    prob: Probability = 1.0

    @field_validator("quality")
    @classmethod
    def _check(cls, value: float | list[float]) -> float | list[float]:
        low, high = bounds(value)
        if low < 1 or high > 100:
            raise PydanticCustomError("quality", "quality lies between 1 and 100")
        return value


Step = Annotated[Bicubic | Blur | Sinc | Resize | Noise | Poisson | Jpeg | RealEsrgan, Field(discriminator="type")]


class _Steps(Options):
    """What is read from a command line or a manifest rather than from an option file.

    Attributes:
        steps: one after the other.
    """

    steps: list[Step]


def check_steps(steps: Sequence[Step], *, downscales: bool) -> None:
    """Raise InputError (`degradation.steps`) unless exactly one step brings the image to the size of the LR image.

    At scale 1 there may be none, unless a step resizes.
    """
    shrinks = [number for number, step in enumerate(steps) if isinstance(step, (Bicubic, RealEsrgan))]
    resized = [number for number, step in enumerate(steps) if isinstance(step, Resize)]
    if len(shrinks) > 1 or ((downscales or resized) and not shrinks) or (resized and resized[-1] > shrinks[-1]):
        raise InputError(
            "a degradation needs exactly one step of type bicubic (or real_esrgan), which downscales, after those of "
            "type resize; at scale 1 it may have none",
            code="degradation.steps",
        )


def parse_steps(text: str) -> tuple[Step, ...]:
    """Read steps as the command line gives them, in order: `noise=25`, `bicubic+jpeg=40`, `real_esrgan`.

    Raises:
        InputError: `degradation.syntax`; as `check_options` for a value out of range.
    """
    steps = []
    for part in text.split("+"):
        kind, equals, value = (word.strip() for word in part.partition("="))
        try:
            number = {} if kind in _WITHOUT_STRENGTH else {_STRENGTHS[kind]: float(value)}
        except (KeyError, ValueError) as error:
            raise InputError(_usage(text), code="degradation.syntax") from error
        if kind in _WITHOUT_STRENGTH and equals:
            raise InputError(_usage(text), code="degradation.syntax")
        steps.append({"type": kind, **number})
    return tuple(check_options({"steps": steps}, _Steps, f"--degrade {text}").steps)


def read_steps(described: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Read steps as the manifest of a data set has them; raises InputError."""
    return tuple(check_options({"steps": described}, _Steps, "degradation").steps)


def name_of_steps(steps: Sequence[Step]) -> str:
    """A degradation in words: `noise sigma 25`, `MATLAB bicubic, JPEG quality 10 to 40`."""
    return ", ".join(map(_in_words, steps))


_STRENGTHS = {
    "noise": "sigma",
    "poisson": "scale",
    "jpeg": "quality",
    "blur": "sigma",
    "sinc": "cutoff",
    "resize": "factor",
}
_WITHOUT_STRENGTH = ("bicubic", "real_esrgan")


def _usage(text: str) -> str:
    return (
        f"--degrade {text}: write noise=SIGMA, poisson=SCALE, jpeg=QUALITY, blur=SIGMA or real_esrgan, several as in "
        "blur=1.6+noise=2"
    )


def _in_words(step: Step) -> str:
    if isinstance(step, Bicubic):
        return "MATLAB bicubic"
    if isinstance(step, RealEsrgan):
        return "Real-ESRGAN's degradation"
    strength = _STRENGTHS[step.type]
    low, high = bounds(getattr(step, strength))
    kind: str = "JPEG" if isinstance(step, Jpeg) else step.type
    kind = f"{step.shape} {kind}" if isinstance(step, Blur) and step.shape else kind
    often = "" if step.prob == 1 else f" ({step.prob:.0%})"
    return f"{kind} {strength} {low:g}" + ("" if low == high else f" to {high:g}") + often
