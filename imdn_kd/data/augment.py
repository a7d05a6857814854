"""Augmentations of training patches that can be undone exactly: turns, mirror images, exchanged and inverted colours.

What is done to a sample is one integer, its code: a sum of `HFLIP`, `VFLIP`, `TRANSPOSE` and `INVERSION`, and of
`PERMUTATION` times a number 0..5, all in this order; 0 does nothing. The same code fits all planes of a sample,
whatever their sizes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imdn_kd.errors import InputError
from imdn_kd.image.rgb import Pixels

HFLIP = 1
"""Exchange left and right."""

VFLIP = 2
"""Exchange top and bottom."""

TRANSPOSE = 4
"""Exchange rows and columns, after the flips; with these it makes all turns by 90 degrees."""

INVERSION = 8
"""Take the negative: white less the value."""

PERMUTATION = 16
"""Times n: channel c of the result is channel `PERMUTATIONS[n][c]`."""

PERMUTATIONS = tuple(itertools.permutations(range(3)))
"""Orders of the channels, by number; 0 leaves them as they are."""

CODES = PERMUTATION * len(PERMUTATIONS)
"""How many codes there are: 0..95."""


@dataclass(frozen=True)
class Augmentation:
    """Which augmentations are drawn, each independently of the others.

    Attributes:
        use_hflip: `HFLIP` for half of the samples.
        use_rot: `VFLIP` for half of the samples, and `TRANSPOSE` for half of the samples, as in BasicSR.
        use_channel_shuffle: all `PERMUTATIONS` equally often.
        use_inversion: `INVERSION` for half of the samples.
    """

    use_hflip: bool = True
    use_rot: bool = True
    use_channel_shuffle: bool = False
    use_inversion: bool = False

    def draw(self, words: Tensor) -> Tensor:
        """Return the code that a word of 64 random bits stands for, of the shape of `words`; both int64.

        Every augmentation has bits of its own: turning one on or off leaves the others as they were.
        """
        flags = HFLIP * self.use_hflip + (VFLIP + TRANSPOSE) * self.use_rot + INVERSION * self.use_inversion
        codes = words & flags
        if self.use_channel_shuffle:
            high = words >> 32 & 0xFFFFFFFF
            codes = codes + PERMUTATION * (high * len(PERMUTATIONS) >> 32)
        return codes


def apply(images: Tensor, codes: Tensor, *, white: float = 1.0) -> Tensor:
    """Return images as their codes say.

    Args:
        images: N x C x H x W, uint8 (white is 255) or floating, on any device. Height and width must be equal if a
            code transposes; there must be 3 channels if a code permutes them.
        codes: N, int64, 0..95. On the CPU, wherever the images are: then they are checked. Or on the device of the
            images: then they are not looked at, since that would mean to wait for the device, and the images must fit
            any code.
        white: value of white in floating images.

    Returns:
        New images of the same shape, type, device and memory format. Gradients pass.

    Raises:
        InputError: images or codes are not as described.
    """
    return _change(images, codes, _kinds(images, codes), white)


def undo(images: Tensor, codes: Tensor, *, white: float = 1.0) -> Tensor:
    """Return images as they were before `apply`, with the same arguments and errors.

    Exactly so, but for `INVERSION` of floating images, which rounds where white less the value is not a number of their
    type.
    """
    _kinds(images, codes)  # checks what was given
    inverses = torch.tensor(_INVERSES).to(codes.device, non_blocking=True)[codes]
    return _change(images, inverses, _kinds(images, inverses), white)


def _kinds(images: Tensor, codes: Tensor) -> set[int]:
    """Check the arguments, and find which augmentations may be among the codes."""
    if images.ndim != 4 or not (images.dtype == torch.uint8 or images.is_floating_point()):
        shape = tuple(images.shape)
        raise InputError(f"cannot augment {images.dtype} of shape {shape}; give N x C x H x W, uint8 or floating")
    if codes.shape != images.shape[:1] or codes.dtype != torch.int64:
        shape = tuple(codes.shape)
        raise InputError(f"codes are {codes.dtype} of shape {shape}; give one int64 for each of {len(images)} images")
    if codes.device.type != "cpu" and codes.device != images.device:
        raise InputError(f"codes are on {codes.device}, images on {images.device}; move the codes to the CPU")
    numbers = codes.tolist() if codes.device.type == "cpu" else range(CODES)
    if not all(0 <= number < CODES for number in numbers):
        raise InputError(f"codes are {min(numbers)} to {max(numbers)}; give 0 to {CODES - 1}")
    kinds = {kind for kind in (HFLIP, VFLIP, TRANSPOSE, INVERSION) if any(number & kind for number in numbers)}
    kinds |= {PERMUTATION} if any(number >= PERMUTATION for number in numbers) else set()
    height, width = images.shape[2:]
    if TRANSPOSE in kinds and height != width:
        raise InputError(f"cannot transpose some of these images of {width}x{height} px; give squares, or other codes")
    if PERMUTATION in kinds and images.shape[1] != 3:
        raise InputError(f"cannot permute {images.shape[1]} channels; give images of 3 channels, or other codes")
    return kinds


def _change(images: Tensor, codes: Tensor, kinds: set[int], white: float) -> Tensor:
    if images.device.type == "cpu" and images.dtype == torch.uint8:
        return _by_sample(images, codes.tolist())
    return _by_mask(images, codes.to(images.device, non_blocking=True), kinds, white)


def _inverse(code: int) -> int:
    """The code that undoes another."""
    flips = code & (HFLIP | VFLIP)
    if code & TRANSPOSE and flips in (HFLIP, VFLIP):
        flips ^= HFLIP | VFLIP
    order = PERMUTATIONS[code // PERMUTATION]
    back = PERMUTATIONS.index(tuple(order.index(channel) for channel in range(3)))
    return flips + (code & (TRANSPOSE | INVERSION)) + PERMUTATION * back


_INVERSES = [_inverse(code) for code in range(CODES)]


def copy_sample(source: Pixels, target: Pixels, code: int) -> None:
    """Write an image of bytes into `target` as its code says, both C x H x W, in one pass.

    Several times as fast as whole batches in PyTorch, which has no views with negative steps. Nothing is checked.
    """
    view = source[:, :: -1 if code & VFLIP else 1, :: -1 if code & HFLIP else 1]
    view = view.swapaxes(1, 2) if code & TRANSPOSE else view
    if code & ~VFLIP:
        # Plane by plane: where channels lie side by side, the innermost loop would otherwise run over three of them.
        order = PERMUTATIONS[code // PERMUTATION] if code >= PERMUTATION else range(len(view))
        for plane, channel in zip(target, order, strict=True):
            plane[:] = view[channel]
    else:
        target[:] = view
    if code & INVERSION:
        np.invert(target, out=target)


def _by_sample(images: Tensor, codes: list[int]) -> Tensor:
    out = torch.empty_like(images)
    for code, source, target in zip(codes, images.numpy(), out.numpy(), strict=True):
        copy_sample(source, target, code)
    return out


def _by_mask(images: Tensor, codes: Tensor, kinds: set[int], white: float) -> Tensor:
    """All images at once, without looking at their codes: on a device that should not be waited for, and for floats."""

    def chosen(kind: int, changed: Tensor, same: Tensor) -> Tensor:
        return torch.where((codes & kind != 0)[:, None, None, None], changed, same)

    out = images
    if HFLIP in kinds:
        out = chosen(HFLIP, out.flip(3), out)
    if VFLIP in kinds:
        out = chosen(VFLIP, out.flip(2), out)
    if TRANSPOSE in kinds:
        out = chosen(TRANSPOSE, out.mT, out)
    if INVERSION in kinds:
        out = chosen(INVERSION, ~out if out.dtype == torch.uint8 else white - out, out)
    if PERMUTATION in kinds:
        orders = torch.tensor(PERMUTATIONS).to(codes.device, non_blocking=True)[codes // PERMUTATION]
        out = out.gather(1, orders[:, :, None, None].expand_as(out))
    return torch.empty_like(images).copy_(out)
