"""Pairs of HR and LR images, wherever they are stored, and scales as fractions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from imdn_kd.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imdn_kd.image.rgb import RgbImage


class ImagePairs(Protocol):
    """HR images (`gt`) with their LR images (`lq`), read-only, usable from several processes.

    Attributes:
        scale: px of `gt` per px of `lq`. The sides of `gt` are multiples of the numerator, those of `lq` the same
            multiples of the denominator.
        planes: names of what `read` returns, `gt` and `lq` first; others (a teacher's output) have the size of `gt`,
            but those in an attribute `pitches`, if there is one: maps of features, by px of `lq` per px of theirs.
    """

    scale: Fraction
    planes: Sequence[str]

    def __len__(self) -> int:
        """Return the number of pairs."""
        ...

    def name(self, index: int) -> str:
        """Return the name of an image, for messages."""
        ...

    def lq_sizes(self) -> npt.NDArray[np.int64]:
        """Return the (height, width) of every `lq` image, px; may have to read the header of every file."""
        ...

    def read(self, index: int) -> dict[str, RgbImage]:
        """Return the planes of an image, each H x W x 3, RGB; possibly read-only views.

        Raises:
            InputError: an image is damaged, or the sizes of a pair do not fit (`data.lr-size`).
        """
        ...


def exact_scale(scale: float | str | Fraction) -> Fraction:
    """Return a scale as a fraction: 2 is 2/1, 1.5 is 3/2.

    Raises:
        InputError: `scale.invalid`: less than 1, not a number, or more than two decimals.
    """
    try:
        exact = Fraction(str(scale))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"scale is {scale!r}; give a number such as 2 or 1.5", code="scale.invalid") from error
    if exact < 1 or 100 % exact.denominator:
        raise InputError(
            f"scale is {scale}; give a factor from 1 up with at most two decimals, such as 2 or 1.5",
            code="scale.invalid",
        )
    return exact


def lq_plane(scale: Fraction) -> str:
    """Name of the LR plane of a scale: `lq_x4`, `lq_x1.5`."""
    return f"lq_x{float(scale):g}"
