"""Degradations that make LR images: what an option file or the command line says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Options, check_options
from imdn_kd.errors import InputError


def _check_range(value: float | list[float]) -> float | list[float]:
    low, high = bounds(value)
    if not 0 <= low <= high <= 255:
        raise PydanticCustomError("range", "give a number from 0 to 255, or two, [lowest, highest]")
    return value


Range = Annotated[float | Annotated[list[float], Field(min_length=2, max_length=2)], AfterValidator(_check_range)]
"""A number, or two between which one is drawn uniformly for each image."""


class Bicubic(Options):
    """Downscale by the scale, as MATLAB's `imresize` does."""

    type: Literal["bicubic"] = "bicubic"


class Blur(Options):
    """Gaussian blur.

    Attributes:
        sigma: standard deviation, px of the image at this step.
    """

    type: Literal["blur"]
    sigma: Range


class Noise(Options):
    """Additive Gaussian noise, independent per channel.

    Attributes:
        sigma: standard deviation, levels of 255.
    """

    type: Literal["noise"]
    sigma: Range


class Jpeg(Options):
    """JPEG compression.

    Attributes:
        quality: 1 to 100, as in Pillow.
    """

    type: Literal["jpeg"]
    quality: Range

    @field_validator("quality")
    @classmethod
    def _check(cls, value: float | list[float]) -> float | list[float]:
        low, high = bounds(value)
        if low < 1 or high > 100:
            raise PydanticCustomError("quality", "quality lies between 1 and 100")
        return value


Step = Annotated[Bicubic | Blur | Noise | Jpeg, Field(discriminator="type")]


class _Steps(Options):
    """What is read from a command line or a manifest rather than from an option file.

    Attributes:
        steps: one after the other.
    """

    steps: list[Step]


def bounds(value: float | list[float]) -> tuple[float, float]:
    """The lowest and highest value of a `Range`."""
    return (value[0], value[1]) if isinstance(value, list) else (value, value)


def check_steps(steps: Sequence[Step], *, downscales: bool) -> None:
    """Raise InputError (`degradation.steps`) unless exactly one step is `Bicubic`; at scale 1 there may be none."""
    shrinks = sum(isinstance(step, Bicubic) for step in steps)
    if shrinks > 1 or (downscales and not shrinks):
        raise InputError(
            "a degradation needs exactly one step of type bicubic, which downscales (none if the scale is 1)",
            code="degradation.steps",
        )


def parse_steps(text: str) -> tuple[Step, ...]:
    """Read steps as the command line gives them, in order: `noise=25`, `blur=1.6+noise=2`, `bicubic+jpeg=40`.

    Raises:
        InputError: `degradation.syntax`; as `check_options` for a value out of range.
    """
    steps = []
    for part in text.split("+"):
        kind, equals, value = (word.strip() for word in part.partition("="))
        try:
            number = {_STRENGTHS[kind]: float(value)} if kind != "bicubic" else {}
        except (KeyError, ValueError) as error:
            raise InputError(_usage(text), code="degradation.syntax") from error
        if kind == "bicubic" and equals:
            raise InputError(_usage(text), code="degradation.syntax")
        steps.append({"type": kind, **number})
    return tuple(check_options({"steps": steps}, _Steps, f"--degrade {text}").steps)


def read_steps(described: Sequence[Mapping[str, Any]]) -> tuple[Step, ...]:
    """Read steps as the manifest of a data set has them; raises InputError."""
    return tuple(check_options({"steps": described}, _Steps, "degradation").steps)


def name_of_steps(steps: Sequence[Step]) -> str:
    """A degradation in words: `noise sigma 25`, `MATLAB bicubic, JPEG quality 10 to 40`."""
    return ", ".join(map(_in_words, steps))


_STRENGTHS = {"noise": "sigma", "jpeg": "quality", "blur": "sigma"}


def _usage(text: str) -> str:
    return f"--degrade {text}: write noise=SIGMA, jpeg=QUALITY or blur=SIGMA, several as in blur=1.6+noise=2"


def _in_words(step: Step) -> str:
    if isinstance(step, Bicubic):
        return "MATLAB bicubic"
    strength = _STRENGTHS[step.type]
    low, high = bounds(getattr(step, strength))
    kind = "JPEG" if isinstance(step, Jpeg) else step.type
    return f"{kind} {strength} {low:g}" + ("" if low == high else f" to {high:g}")
