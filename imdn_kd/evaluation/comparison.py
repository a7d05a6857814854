"""Pictures of the same subject side by side: their errors, figures, and the places where they differ most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError
from imdn_kd.evaluation.crops import Place, most_different
from imdn_kd.evaluation.metrics import psnr, ssim
from imdn_kd.evaluation.protocol import usual_protocol
from imdn_kd.image.rgb import RgbImage

SLACK = 8
"""An HR image may be larger than the pictures by less than this, px: its sides need not be multiples of the scale."""

_ADVICE = "bring them to one size, as by imdn-kd upscale --size, or by cropping"
_WHITE = (4, 8, 16, 32, 64, 128, 255)


@dataclass(frozen=True)
class Shown:
    """One of the pictures.

    Attributes:
        name: on the page.
        pixels: H x W x 3, RGB.
        error: absolute difference from the reference, mean of the channels, H x W; None for the reference itself.
        psnr: dB against HR; None without HR.
        ssim: likewise.
    """

    name: str
    pixels: RgbImage
    error: npt.NDArray[np.uint8] | None = None
    psnr: float | None = None
    ssim: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Pictures beside each other.

    Attributes:
        pictures: all of them, the reference first if it is HR.
        reference: name of the picture that errors are of.
        protocol: how PSNR and SSIM were measured; empty without HR.
        white: levels of error that are drawn white.
        places: where the pictures differ most.
    """

    pictures: tuple[Shown, ...]
    reference: str
    protocol: str
    white: int
    places: tuple[Place, ...]


def compare_pictures(
    pictures: Sequence[tuple[str, RgbImage]], hr: RgbImage | None = None, scale: int = 1
) -> Comparison:
    """Compare pictures with each other and, if there is one, with the ground truth.

    Args:
        pictures: name and pixels of each: two or more, or one beside `hr`. Without `hr`, errors are those against the
            first.
        hr: the ground truth, cropped at the right and bottom if it is larger by less than `SLACK` px.
        scale: by which they were enlarged: as many px are cut from the borders before PSNR and SSIM are measured.

    Raises:
        InputError: `compare.too-few`, `compare.size`.
    """
    if len(pictures) + (hr is not None) < 2:
        raise InputError("there is one picture; give another one, or --hr or --model", code="compare.too-few")
    first, size = pictures[0][0], pictures[0][1].shape[:2]
    for name, pixels in pictures[1:]:
        if pixels.shape[:2] != size:
            raise InputError(
                f"{name}: is {_size(pixels)} px, but {first} is {_size(pictures[0][1])}; {_ADVICE}",
                code="compare.size",
            )
    if hr is not None:
        if not all(0 <= ours - theirs < SLACK for ours, theirs in zip(hr.shape[:2], size, strict=True)):
            raise InputError(
                f"HR is {_size(hr)} px, but {first} is {_size(pictures[0][1])}; {_ADVICE}",
                code="compare.size",
            )
        hr = np.ascontiguousarray(hr[: size[0], : size[1]])
    reference = pictures[0][1] if hr is None else hr
    protocol = usual_protocol(max(scale, 2))  # Y, also where the scale is not known
    protocol = replace(protocol, shave=protocol.border(scale))
    shown = [] if hr is None else [Shown("HR", hr)]
    for name, pixels in pictures:
        error = None if pixels is reference else _error(pixels, reference)
        figures = (None, None) if hr is None else (psnr(pixels, hr, scale, protocol), ssim(pixels, hr, scale, protocol))
        shown.append(Shown(name, pixels, error, *figures))
    largest = max(int(np.percentile(each.error, 98)) for each in shown if each.error is not None)
    return Comparison(
        tuple(shown),
        "HR" if hr is not None else first,
        "" if hr is None else protocol.describe(),
        next(level for level in _WHITE if level >= largest),
        tuple(most_different([each.pixels for each in shown])),
    )


def figure(value: float | None, digits: int) -> str:
    """A figure as text; a dash for one that does not exist, as SSIM of pictures smaller than its window."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.{digits}f}"


def _error(pixels: RgbImage, reference: RgbImage) -> npt.NDArray[np.uint8]:
    difference = np.abs(pixels.astype(np.int16) - reference)
    error: npt.NDArray[np.uint8] = np.rint(difference.mean(2)).astype(np.uint8)
    return error


def _size(pixels: RgbImage) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
