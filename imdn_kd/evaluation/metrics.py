"""PSNR and SSIM of 8-bit images, with everything that affects the figures stated in a `Protocol`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError
from imdn_kd.evaluation.protocol import PROTOCOLS, Protocol, Space, Window
from imdn_kd.image.luma import FULL_RANGE_LUMA, LUMA

Image = npt.NDArray[np.uint8]
Values = npt.NDArray[np.floating[Any]]

_SIDES: dict[Window, int] = {"gaussian11": 11, "uniform7": 7}


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


def to_grey(image: Image) -> Image:
    """The grey image, H x W, that an RGB image shows: Y stretched to 0-255, rounded."""
    return np.rint(image @ FULL_RANGE_LUMA).clip(0, 255).astype(np.uint8)


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
        if image.ndim != 2 and (image.shape[2:] != (3,) or protocol.space == "grey"):
            wanted = "H x W grey" if protocol.space == "grey" else "H x W x 3 RGB or H x W grey"
            raise InputError(f"cannot measure an image of shape {image.shape}; give {wanted}", code="metrics.images")
    border = protocol.border(scale)
    height, width = sr.shape[:2]
    inner = (slice(border, max(border, height - border)), slice(border, max(border, width - border)))
    return _convert(sr[inner], protocol.space), _convert(hr[inner], protocol.space)


def _convert(image: Image, space: Space) -> Values:
    if space in ("rgb", "grey") or image.size == 0 or (space == "y-grey" and image.ndim == 2):
        return image.astype(np.float64)
    if space == "y-pillow":
        from PIL import Image as PillowImage

        # A grey image goes through RGB too, as it usually does: Pillow's Y loses a level on the way.
        return np.asarray(PillowImage.fromarray(image).convert("RGB").convert("YCbCr"))[..., 0].astype(np.float64)
    weights = LUMA[::-1] if space == "y-swapped" else LUMA
    y = 16 + (image @ weights if image.ndim == 3 else image * weights.sum())
    return np.floor(y + 0.5) if space == "y-rounded" else y
