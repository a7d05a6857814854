"""More inputs from the same patches, and augmented inputs whose results must agree, for the student to learn from.

Both are of DUKD (Zhang et al., "Data Upcycling Knowledge Distillation for Image Super-Resolution"). Zooming in and out
makes inputs without originals: the teacher's results T(x) are their labels. Label consistency gives the student an
augmented input and compares the result, with the augmentation undone, with the teacher's: undo(S(apply(x))) with T(x).
All random numbers are of PyTorch's global generator of the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from imdn_kd.data import augment
from imdn_kd.errors import InputError


class Augmentation(NamedTuple):
    """What is done to each image of a batch, and can be undone on what a network makes of it.

    Attributes:
        transform_codes: N, int64, on the CPU: as in `imdn_kd.data.augment`, 0..15 for the flips, the transposition,
            and the negative.
    """

    transform_codes: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Return augmented images; gradients pass.

        Args:
            images: N x C x H x W, floating, 1 for white; square if a code transposes.

        Raises:
            InputError: the images do not fit the codes.
        """
        return augment.apply(images, self.transform_codes)

    def undo(self, images: Tensor) -> Tensor:
        """Return images, of any size, as they were before `apply`; gradients pass.

        Exactly so but for the negative: 1 - (1 - x) is within 2^-25 of x in [0, 1] in float32, and equal to x if x is
        a multiple of 2^-24. Half precision becomes float32: a dark value has digits that its negative has not.

        Args:
            images: N x C x H x W, floating, 1 for white; square if a code transposes.

        Raises:
            InputError: the images do not fit the codes.
        """
        half = images.dtype in (torch.float16, torch.bfloat16)
        return augment.undo(images.float() if half else images, self.transform_codes)


def draw_augmentation(count: int) -> Augmentation:
    """Draw one of the 16 augmentations for each of `count` images, all equally likely."""
    return Augmentation(torch.randint(augment.PERMUTATION, (count,)))


def zoom_in(gt: Tensor, size: Sequence[int]) -> Tensor:
    """Cut a random part out of each original: an input that shows less, and with more detail.

    Args:
        gt: N x C x H x W.
        size: height and width of the parts, px: those of the low-quality patches.

    Returns:
        N x C x height x width, a copy.

    Raises:
        InputError: the originals are smaller than that.
    """
    height, width = size
    rows, columns = gt.shape[2] - height, gt.shape[3] - width
    if rows < 0 or columns < 0:
        sides = f"{gt.shape[3]}x{gt.shape[2]}"
        raise InputError(f"cannot cut {width}x{height} px out of originals of {sides} px; give larger originals")
    tops = torch.randint(rows + 1, (len(gt),)).tolist()
    lefts = torch.randint(columns + 1, (len(gt),)).tolist()
    parts = zip(gt, tops, lefts, strict=True)
    return torch.stack([image[:, top : top + height, left : left + width] for image, top, left in parts])


def zoom_out(lq: Tensor, scale: int, *, min_size: int = 1, size_multiple: int = 1) -> Tensor:
    """Shrink low-quality patches by bicubic interpolation with antialiasing: inputs that show the same, and smaller.

    Args:
        lq: N x C x H x W in [0, 1].
        scale: how many times smaller the result is, exactly: what is over at the right and at the bottom is cut off.
        min_size: smallest side that student and teacher take, px, at least 1.
        size_multiple: sides of the result are multiples of this.

    Returns:
        N x C x h x w in [0, 1]; the sides are those of `lq` divided by `scale`, rounded down to `size_multiple`.

    Raises:
        InputError: the patches are too small.
    """
    height, width = (side // (scale * size_multiple) * size_multiple for side in lq.shape[2:])
    if min(height, width) < min_size:
        sides = f"{lq.shape[3]}x{lq.shape[2]}"
        needed = -(-min_size // size_multiple) * size_multiple * scale
        raise InputError(f"cannot zoom out of patches of {sides} px by {scale}; give {needed} px a side or more")
    whole = lq[:, :, : height * scale, : width * scale]
    return functional.interpolate(whole, (height, width), mode="bicubic", antialias=True).clamp(0, 1)
