"""PSNR and SSIM of 8-bit images, with everything that affects the figures stated in a `Protocol`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating[Any]]
Space = Literal["y", "y-rounded", "y-swapped", "y-pillow", "rgb"]
Window = Literal["gaussian11", "uniform7"]

_SPACES: dict[Space, str] = {
    "y": "Y (BT.601, 16-235, not rounded)",
    "y-rounded": "Y (BT.601, 16-235, rounded to whole levels)",
    "y-swapped": "Y (BT.601, 16-235, not rounded) with red and blue swapped",
    "y-pillow": "Y (Pillow's YCbCr, 0-255)",
    "rgb": "RGB",
}
_WINDOWS: dict[Window, str] = {
    "gaussian11": "SSIM window Gaussian 11x11 (sigma 1.5)",
    "uniform7": "SSIM window uniform 7x7",
}

_SIDES: dict[Window, int] = {"gaussian11": 11, "uniform7": 7}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What PSNR and SSIM are measured on; the defaults are those of published tables.

    Attributes:
        space: colour space that is measured. `y` is 16 + 65.481 R + 128.553 G + 24.966 B for R, G, B in [0, 1], as
            MATLAB's `rgb2ycbcr` before rounding; a grey image counts as R = G = B. The others are met elsewhere.
        shave: pixels cut from each border before colours are converted; None for as many as the scale.
        ssim_window: the published 11x11 Gaussian with population covariance, or scikit-image's default, a 7x7 uniform
            window with sample covariance.

    Raises:
        InputError: `metrics.protocol`, a value that is not one of the above.
    """

    space: Space = "y"
    shave: int | None = None
    ssim_window: Window = "gaussian11"

    def __post_init__(self) -> None:
        if self.space not in _SPACES:
            raise InputError(f"space is {self.space!r}; choose one of {', '.join(_SPACES)}", code="metrics.protocol")
        if self.ssim_window not in _WINDOWS:
            raise InputError(
                f"ssim_window is {self.ssim_window!r}; choose one of {', '.join(_WINDOWS)}", code="metrics.protocol"
            )
        if self.shave is not None and self.shave < 0:
            raise InputError(
                f"shave is {self.shave}; give 0 or more pixels, or leave it out to cut as many as the scale",
                code="metrics.protocol",
            )

    def describe(self) -> str:
        """One line to print beside the numbers."""
        border = "`scale`" if self.shave is None else str(self.shave)
        return f"PSNR and SSIM on {_SPACES[self.space]}, {border} px cut from each border, {_WINDOWS[self.ssim_window]}"

    def border(self, scale: float) -> int:
        """Pixels to cut from each border of an image that was enlarged by `scale`; a fraction is rounded up."""
        return math.ceil(scale) if self.shave is None else self.shave


PROTOCOLS = {
    "standard": Protocol(),
    "y-rounded": Protocol(space="y-rounded"),
    "no-shave": Protocol(shave=0),
    "y-swapped": Protocol(space="y-swapped"),
    "y-pillow": Protocol(space="y-pillow"),
    "rgb": Protocol(space="rgb"),
    "ssim-7x7": Protocol(ssim_window="uniform7"),
}
"""The standard protocol, and the deviations that most often explain a difference from it, by name."""


def psnr(sr: Image, hr: Image, scale: float, protocol: Protocol = PROTOCOLS["standard"]) -> float:
    """Peak signal-to-noise ratio for a peak of 255.

    Args:
        sr: the result, H x W x 3 RGB or H x W grey, uint8.
        hr: the ground truth, of the same shape and type (cropped beforehand to a multiple of the scale).
        scale: the factor by which `sr` was enlarged, at least 1; the protocol cuts borders by it.
        protocol: what is measured.

    Returns:
        Decibels, over all pixels and channels together; inf for equal images, nan where no pixel is left between the
        borders.

    Raises:
        InputError: `metrics.images`, the shapes differ or are not as above, or the type is not uint8.
    """
    a, b = _comparable(sr, hr, scale, protocol)
    if a.size == 0:
        return math.nan
    mse = float(np.mean((a - b) ** 2))
    return 10 * math.log10(255**2 / mse) if mse else math.inf


def ssim(sr: Image, hr: Image, scale: float, protocol: Protocol = PROTOCOLS["standard"]) -> float:
    """Structural similarity with K1 = 0.01, K2 = 0.03 and a range of 255, over windows that lie inside the image.

    Args:
        sr: the result, H x W x 3 RGB or H x W grey, uint8.
        hr: the ground truth, of the same shape and type (cropped beforehand to a multiple of the scale).
        scale: the factor by which `sr` was enlarged, at least 1; the protocol cuts borders by it.
        protocol: what is measured.

    Returns:
        Mean over windows, and over channels for RGB, in [-1, 1]; nan where what is left between the borders is smaller
        than a window.

    Raises:
        InputError: `metrics.images`, the shapes differ or are not as above, or the type is not uint8.

    Source: Z. Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004,
    https://doi.org/10.1109/TIP.2003.819861.
    """
    from skimage.metrics import structural_similarity

    a, b = _comparable(sr, hr, scale, protocol)
    options: dict[str, Any] = {"win_size": _SIDES[protocol.ssim_window]}
    if protocol.ssim_window == "gaussian11":
        options |= {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    if not is_measurable(sr.shape[:2], scale, protocol):
        return math.nan
    measure: Any = structural_similarity  # scikit-image is only partly typed
    return float(measure(a, b, data_range=255, channel_axis=2 if a.ndim == 3 else None, **options))


def is_measurable(size: tuple[int, ...], scale: float, protocol: Protocol = PROTOCOLS["standard"]) -> bool:
    """Whether an image of (height, width) px has room for a window of SSIM between the borders that are cut."""
    return min(size) - 2 * protocol.border(scale) >= _SIDES[protocol.ssim_window]


def _comparable(sr: Image, hr: Image, scale: float, protocol: Protocol) -> tuple[Values, Values]:
    """Both images checked, without their borders, in the space of the protocol as float64."""
    if sr.shape != hr.shape:
        raise InputError(
            f"cannot compare images of shapes {sr.shape} and {hr.shape}; crop or convert them to one shape",
            code="metrics.images",
        )
    for image in (sr, hr):
        if image.dtype != np.uint8:
            raise InputError(
                f"cannot measure an image of type {image.dtype}; clamp, round and convert it to uint8",
                code="metrics.images",
            )
        if image.ndim != 2 and image.shape[2:] != (3,):
            raise InputError(
                f"cannot measure an image of shape {image.shape}; give H x W x 3 RGB or H x W grey",
                code="metrics.images",
            )
    border = protocol.border(scale)
    height, width = sr.shape[:2]
    inner = (slice(border, max(border, height - border)), slice(border, max(border, width - border)))
    return _convert(sr[inner], protocol.space), _convert(hr[inner], protocol.space)


def _convert(image: Image, space: Space) -> Values:
    if space == "rgb" or image.size == 0:
        return image.astype(np.float64)
    if space == "y-pillow":
        from PIL import Image as PillowImage

        # A grey image goes through RGB too, as it usually does: Pillow's Y loses a level on the way.
        return np.asarray(PillowImage.fromarray(image).convert("RGB").convert("YCbCr"))[..., 0].astype(np.float64)
    weights = np.array([65.481, 128.553, 24.966]) / 255
    if space == "y-swapped":
        weights = weights[::-1]
    y = 16 + (image @ weights if image.ndim == 3 else image * weights.sum())
    return np.floor(y + 0.5) if space == "y-rounded" else y
