"""MATLAB's bicubic `imresize` in numpy, with which super-resolution data sets and tables are made.

Two properties distinguish it from other bicubic functions: the kernel is widened when shrinking (antialiasing), and
images keep their class, so an integer image is rounded and clamped after each of the two dimensions. Only with both do
the published Set5 low-resolution files come out bit for bit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from imdn_kd.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

Scalar = TypeVar("Scalar", bound=np.generic)
FloatArray = npt.NDArray[np.floating[Any]]

_DTYPES = ("uint8", "uint16", "float32", "float64")
_BAND = 128  # input rows, about, that are resized at a time
_SMALLEST_SCALE = 1e-6  # the kernel is 4 / scale pixels wide, whatever the size of the image


def imresize(
    image: npt.NDArray[Scalar], scale: float | None = None, *, size: tuple[int, int] | None = None
) -> npt.NDArray[Scalar]:
    """Resize an image as MATLAB's `imresize(image, ..., 'bicubic')` does.

    Cubic kernel with a = -0.5, widened by the factor when shrinking, symmetric padding. The dimension with the smaller
    factor goes first, rows first when both are equal.

    An exact tie (x.5) in an integer image is rounded up even where rounding errors put it just below, so that the
    result is the same on every machine. This has no effect at factors of 2, 3 and 4, up or down, where arithmetic is
    exact or ties cannot occur.

    Args:
        image: H x W or H x W x C pixels, at least 1 x 1, of type uint8, uint16, float32 or float64, any range.
        scale: factor for both dimensions. The result has ceil(H * scale) x ceil(W * scale) pixels, with the products
            in double precision as in MATLAB: 100 pixels at 1.1 give 111, because 100 * 1.1 is slightly more than 110
            there. Use `size` to ask for 110.
        size: (height, width) of the result, instead of `scale`; each dimension then has its own factor.

    Returns:
        The resized image, C-contiguous, same number of dimensions and same type. Integers are rounded and clamped to
        their range after each dimension; floats are neither, and are computed in their own precision.

    Raises:
        InputError: `resize.image`, a type or shape not listed above; `resize.size`, both or neither of `scale` and
            `size`, or one that is not positive and finite.

    Source: MATLAB Image Processing Toolbox, `imresize`; R. Keys, "Cubic convolution interpolation for digital image
    processing", 1981, https://doi.org/10.1109/TASSP.1981.1163711.
    """
    if image.dtype not in _DTYPES:
        raise InputError(
            f"cannot resize an image of type {image.dtype}; convert it to one of {', '.join(_DTYPES)}",
            code="resize.image",
        )
    if image.ndim not in (2, 3) or image.size == 0:
        raise InputError(
            f"cannot resize an image of shape {image.shape}; give H x W or H x W x C with no side empty",
            code="resize.image",
        )
    height, width = image.shape[:2]
    if size is None:
        if scale is None:
            raise InputError("imresize got neither scale nor size; give one of them", code="resize.size")
        if not (_SMALLEST_SCALE <= scale < math.inf):
            raise InputError(f"scale is {scale}; give a positive number such as 0.25 or 3", code="resize.size")
        size = math.ceil(height * scale), math.ceil(width * scale)
        scales = scale, scale
    else:
        if scale is not None:
            raise InputError("imresize got both scale and size; give one of them", code="resize.size")
        if len(size) != 2 or not all(isinstance(side, int | np.integer) and side >= 1 for side in size):
            raise InputError(
                f"size is {size}; give (height, width) as two whole numbers, at least 1", code="resize.size"
            )
        size = int(size[0]), int(size[1])
        scales = size[0] / height, size[1] / width

    factor = _exact_factor(image, scales)
    if factor is not None:
        return _shrink_with_torch(image, size, factor)
    if scales[0] <= scales[1]:
        return _turn(_resize_rows(_turn(_resize_rows(image, size[0], scales[0])), size[1], scales[1]))
    return _resize_rows(_turn(_resize_rows(_turn(image), size[1], scales[1])), size[0], scales[0])


def _exact_factor(image: npt.NDArray[Any], scales: tuple[float, float]) -> int | None:
    """The factor by which PyTorch downscales this image without rounding errors, or None."""
    factor = round(1 / scales[0])
    fits = image.dtype == np.uint8 and factor in (2, 4, 8) and scales == (1 / factor, 1 / factor)
    return factor if fits and min(image.shape[:2]) >= 4 * factor else None


def _shrink_with_torch(image: npt.NDArray[Any], size: tuple[int, int], factor: int) -> npt.NDArray[Any]:
    """Downscale a uint8 image with PyTorch's antialiased bicubic: several times as fast as sparse products, and exact.

    PyTorch adds up 8-bit pixels in integers, with 16-bit weights of as many binary places as fit. At factors of 2, 4
    and 8 no weight is rounded.
    """
    import torch

    # PyTorch warns of read-only memory.
    pixels = torch.from_numpy(image if image.flags.writeable else image.copy())[None]
    # PyTorch recognises this order as channels last, and keeps it.
    planes = pixels.permute(0, 3, 1, 2) if image.ndim == 3 else pixels[None]
    for axis in (0, 1):
        planes = _shrink_axis(planes, 2 + axis, size[axis], factor)
    return np.ascontiguousarray((planes[0].permute(1, 2, 0) if image.ndim == 3 else planes[0, 0]).numpy())


def _shrink_axis(planes: Tensor, axis: int, length: int, factor: int) -> Tensor:
    """Downscale one dimension of N x C x H x W.

    At borders PyTorch leaves pixels out where MATLAB mirrors them, so the two outermost results on either side come
    from mirrored strips.
    """
    import torch
    from torch.nn.functional import interpolate

    def antialiased(part: Tensor) -> Tensor:
        sides = list(part.shape[2:])
        sides[axis - 2] //= factor
        return interpolate(part, size=sides, mode="bicubic", antialias=True)

    whole, given = planes.shape[axis] // factor, planes.shape[axis]
    near = planes.narrow(axis, 0, 4 * factor)
    far = planes.narrow(axis, (whole - 4) * factor, given - (whole - 4) * factor)
    mirrored = 2 * factor + length * factor - given
    near = torch.cat((near.narrow(axis, 0, 2 * factor).flip(axis), near), axis)
    far = torch.cat((far, far.narrow(axis, far.shape[axis] - mirrored, mirrored).flip(axis)), axis)
    inner = antialiased(planes.narrow(axis, 0, whole * factor)).narrow(axis, 2, whole - 4)
    first = antialiased(near).narrow(axis, 2, 2)
    last = antialiased(far).narrow(axis, 2, 2 + length - whole)
    return torch.cat((first, inner, last), axis)


def _turn(image: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """A contiguous copy with the first two dimensions swapped."""
    turned = np.empty((image.shape[1], image.shape[0], *image.shape[2:]), image.dtype)
    # Channel by channel, since numpy would otherwise run its innermost loop over three values at a time.
    for channel in np.ndindex(image.shape[2:]):
        plane = (slice(None), slice(None), *channel)
        turned[plane] = image[plane].T
    return turned


def _resize_rows(image: npt.NDArray[Scalar], length: int, scale: float) -> npt.NDArray[Scalar]:
    """Resize the first dimension to `length`, a band of rows at a time to stay in cache and small in memory."""
    if scale == 1:
        return np.array(image, order="C")
    # Sparse rather than dense products: as fast, and BLAS threads of several processes compete for the cores.
    from scipy.sparse import csr_array

    weights, indices = _contributions(image.shape[0], length, scale)
    if image.dtype == np.float32 or (image.dtype == np.uint8 and _exact_in_float32(weights)):
        weights = weights.astype(np.float32)
    out = np.empty((length, *image.shape[1:]), image.dtype)
    step = max(8, round(_BAND * scale))
    bands = [slice(start, min(start + step, length)) for start in range(0, length, step)]
    spans = [slice(indices[band].min(), indices[band].max() + 1) for band in bands]
    buffer = np.empty((max(span.stop - span.start for span in spans), *image.shape[1:]), weights.dtype)
    for band, span in zip(bands, spans, strict=True):
        taps, columns = weights[band], indices[band] - span.start
        if image.dtype == weights.dtype:
            pixels = image[span]
        else:
            pixels = buffer[: span.stop - span.start]
            pixels[:] = image[span]
        ends = np.arange(0, taps.size + 1, taps.shape[1], dtype=np.int32)  # 32-bit, or scipy converts
        matrix = csr_array((taps.ravel(), columns.ravel(), ends), shape=(len(taps), len(pixels)))
        values = matrix @ pixels.reshape(len(pixels), -1)
        if out.dtype.kind == "u":
            top = np.iinfo(out.dtype).max
            # Conversion to an integer truncates. The last term lifts ties over the noise of 64-bit sums.
            values += 0.5 + top * 2.0**-38
            np.clip(values, 0, top + 0.5, out=values)
        out[band] = values.reshape(out[band].shape)
    return out


def _contributions(in_length: int, out_length: int, scale: float) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Weights and 0-based input positions (out_length x taps each); a position beyond the edge is its mirror image."""
    shrink = min(scale, 1.0)
    width = 4 / shrink
    # MATLAB's pixel centres: 0.5 maps to 0.5, and pixels count from 1.
    centres = np.arange(1, out_length + 1) / scale + 0.5 * (1 - 1 / scale)
    taps = np.arange(math.ceil(width) + 2)
    positions = np.floor(centres - width / 2)[:, None] + taps
    weights = _cubic(shrink * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    weights, positions = weights[:, used], positions[:, used]
    folded = (positions.astype(np.int32) - 1) % (2 * in_length)
    return weights, np.minimum(folded, 2 * in_length - 1 - folded)


def _cubic(x: FloatArray) -> FloatArray:
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x**2 + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def _exact_in_float32(weights: FloatArray) -> bool:
    """Whether 32-bit sums of weights times 8-bit pixels have no rounding error: so at factors of 2 and 4 upwards.

    Weights that are multiples of 2^-15, of magnitudes that add up to less than 2, make every partial sum a multiple of
    2^-15 below 2^9, and those are all 24-bit numbers.
    """
    fixed = weights * 2.0**15
    return bool((fixed == np.rint(fixed)).all())
