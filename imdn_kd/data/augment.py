"""Invertible augmentations of training patches: flips, rotations, channel shuffle and colour inversion.

The transform of a sample is one integer, its transform code: a sum of `HFLIP`, `VFLIP`, `TRANSPOSE` and `INVERSION`,
and of `PERMUTATION` times a number 0..5, all in this order; 0 does nothing. The same code fits all planes of a sample,
whatever their sizes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imdn_kd.errors import InputError

HFLIP = 1
"""Exchange left and right."""

VFLIP = 2
"""Exchange top and bottom."""

TRANSPOSE = 4
"""Exchange rows and columns, after the flips; with these it makes all turns by 90 degrees."""

INVERSION = 8
"""Invert the colours: maximum value less the value."""

PERMUTATION = 16
"""Times n: channel c of the result is channel `PERMUTATIONS[n][c]`."""

PERMUTATIONS = tuple(itertools.permutations(range(3)))
"""Orders of the channels, by number; 0 leaves them as they are."""

NUM_TRANSFORM_CODES = PERMUTATION * len(PERMUTATIONS)
"""Number of transform codes: 0..95."""


@dataclass(frozen=True)
class AugmentOptions:
    """Augmentations to draw from, each independently of the others.

    Attributes:
        use_hflip: `HFLIP` for half of the samples.
        use_rot: `VFLIP` for half of the samples, and `TRANSPOSE` for half of the samples, as in BasicSR.
        use_channel_shuffle: all `PERMUTATIONS`, uniformly.
        use_inversion: `INVERSION` for half of the samples.
    """

    use_hflip: bool = True
    use_rot: bool = True
    use_channel_shuffle: bool = False
    use_inversion: bool = False

    def draw(self, random_bits: Tensor) -> Tensor:
        """Return the transform codes that 64 random bits each stand for, in the shape of `random_bits`; both int64.

        Every augmentation has bits of its own: turning one on or off leaves the others as they were.
        """
        flags = HFLIP * self.use_hflip + (VFLIP + TRANSPOSE) * self.use_rot + INVERSION * self.use_inversion
        transform_codes = random_bits & flags
        if self.use_channel_shuffle:
            high = random_bits >> 32 & 0xFFFFFFFF
            transform_codes = transform_codes + PERMUTATION * (high * len(PERMUTATIONS) >> 32)
        return transform_codes


def apply(images: Tensor, transform_codes: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Return images transformed by their codes.

    Args:
        images: N x C x H x W, uint8 or floating, on any device. Height and width must be equal if a
            code transposes; there must be 3 channels if a code permutes them.
        transform_codes: N, int64, 0..95. On the CPU they are checked, wherever the images are. On the device of the
            images they are not checked, since that would wait for the device; the images must then fit any code.
        max_value: value of white in floating images; uint8 images have 255.

    Returns:
        New images of the same shape, type, device and memory format. Gradients pass.

    Raises:
        InputError: `augment.images`, `augment.codes`, or `augment.mismatch` where the two do not fit each other.
    """
    return _change(images, transform_codes, _kinds(images, transform_codes), max_value)


def undo(images: Tensor, transform_codes: Tensor, *, max_value: float = 1.0) -> Tensor:
    """Return images as they were before `apply`, with the same arguments and errors.

    Exact but for `INVERSION` of floating images, which rounds where the difference is no number of their type.
    """
    _kinds(images, transform_codes)  # checks what was given
    inverses = torch.tensor(_INVERSES).to(transform_codes.device, non_blocking=True)[transform_codes]
    return _change(images, inverses, _kinds(images, inverses), max_value)


def _kinds(images: Tensor, transform_codes: Tensor) -> set[int]:
    """Check the arguments, and find which augmentations may occur."""
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        shape = tuple(images.shape)
        message = f"cannot augment {images.dtype} of shape {shape}; give N x C x H x W, uint8 or floating"
        raise InputError(message, code="augment.images")
    if transform_codes.shape != images.shape[:1] or transform_codes.dtype != torch.int64:
        shape = tuple(transform_codes.shape)
        given = f"transform_codes are {transform_codes.dtype} of shape {shape}"
        raise InputError(f"{given}; give one int64 for each of {len(images)} images", code="augment.codes")
    if transform_codes.device.type != "cpu" and transform_codes.device != images.device:
        places = f"transform_codes are on {transform_codes.device}, images on {images.device}"
        raise InputError(f"{places}; move the codes to the CPU", code="augment.codes")
    numbers = transform_codes.tolist() if transform_codes.device.type == "cpu" else range(NUM_TRANSFORM_CODES)
    if not all(0 <= number < NUM_TRANSFORM_CODES for number in numbers):
        given = f"transform_codes are {min(numbers)} to {max(numbers)}"
        raise InputError(f"{given}; give 0 to {NUM_TRANSFORM_CODES - 1}", code="augment.codes")
    kinds = {kind for kind in (HFLIP, VFLIP, TRANSPOSE, INVERSION) if any(number & kind for number in numbers)}
    kinds |= {PERMUTATION} if any(number >= PERMUTATION for number in numbers) else set()
    height, width = images.shape[2:]
    if TRANSPOSE in kinds and height != width:
        message = f"cannot transpose images of {width}x{height} px; give squares, or other codes"
        raise InputError(message, code="augment.mismatch")
    if PERMUTATION in kinds and images.shape[1] != 3:
        message = f"cannot permute {images.shape[1]} channels; give images of 3 channels, or other codes"
        raise InputError(message, code="augment.mismatch")
    return kinds


def _change(images: Tensor, transform_codes: Tensor, kinds: set[int], max_value: float) -> Tensor:
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        return _by_sample(images, transform_codes.tolist())
    return _by_mask(images, transform_codes.to(images.device, non_blocking=True), kinds, max_value)


def _inverse(code: int) -> int:
    """The code that undoes another."""
    flips = code & (HFLIP | VFLIP)
    if code & TRANSPOSE and flips in (HFLIP, VFLIP):
        flips ^= HFLIP | VFLIP
    order = PERMUTATIONS[code // PERMUTATION]
    back = PERMUTATIONS.index(tuple(order.index(channel) for channel in range(3)))
    return flips + (code & (TRANSPOSE | INVERSION)) + PERMUTATION * back


_INVERSES = [_inverse(code) for code in range(NUM_TRANSFORM_CODES)]


def copy_sample(source: npt.NDArray[Any], target: npt.NDArray[Any], code: int) -> None:
    """Write an image, or a map of features, into `target`, transformed by its code, both C x H x W, in one pass.

    Codes with colours are for uint8 images. Several times as fast as whole batches in PyTorch, which has no views with
    negative steps. Nothing is checked.
    """
    view = source[:, :: -1 if code & VFLIP else 1, :: -1 if code & HFLIP else 1]
    view = view.swapaxes(1, 2) if code & TRANSPOSE else view
    if code & ~VFLIP and len(view) == 3:
        # Plane by plane: where channels lie side by side, the innermost loop would otherwise run over three of them.
        order = PERMUTATIONS[code // PERMUTATION] if code >= PERMUTATION else range(len(view))
        for plane, channel in zip(target, order, strict=True):
            plane[:] = view[channel]
    else:
        target[:] = view
    if code & INVERSION:
        np.invert(target, out=target)


def _by_sample(images: Tensor, transform_codes: list[int]) -> Tensor:
    out = torch.empty_like(images)
    for code, source, target in zip(transform_codes, images.numpy(), out.numpy(), strict=True):
        copy_sample(source, target, code)
    return out


def _by_mask(images: Tensor, transform_codes: Tensor, kinds: set[int], max_value: float) -> Tensor:
    """Transform all images at once without reading their codes: for floats, and on a device that must not wait."""

    def chosen(kind: int, changed: Tensor, same: Tensor) -> Tensor:
        return torch.where((transform_codes & kind != 0)[:, None, None, None], changed, same)

    out = images
    if HFLIP in kinds:
        out = chosen(HFLIP, out.flip(3), out)
    if VFLIP in kinds:
        out = chosen(VFLIP, out.flip(2), out)
    if TRANSPOSE in kinds:
        out = chosen(TRANSPOSE, out.mT, out)
    if INVERSION in kinds:
        out = chosen(INVERSION, ~out if out.dtype == torch.uint8 else max_value - out, out)
    if PERMUTATION in kinds:
        orders = torch.tensor(PERMUTATIONS).to(transform_codes.device, non_blocking=True)[
            transform_codes // PERMUTATION
        ]
        out = out.gather(1, orders[:, :, None, None].expand_as(out))
    return torch.empty_like(images).copy_(out)
