"""Target sizes, and the networks that reach them."""

from __future__ import annotations

import math
import re
from collections.abc import Collection

from imdn_kd.errors import InputError

Size = tuple[int, int]
"""(height, width) in px."""

_LONGEST = 2**31 - 1  # px of a side, in PNG and most others


def parse_size(text: str) -> Size:
    """Read `WIDTHxHEIGHT` as (height, width); raises InputError."""
    match = re.fullmatch(r"(\d{1,18})x(\d{1,18})", text.strip().lower())
    if match is None:
        raise InputError(f"{text!r} is not a size; write WIDTHxHEIGHT in px, as in 3840x2160", code="size.unreadable")
    return int(match[2]), int(match[1])


def target_size(source: Size, *, scale: float | None = None, size: Size | None = None, fit: Size | None = None) -> Size:
    """Height and width of the result for an image of size `source`.

    Args:
        source: size of the input.
        scale: of both sides, at least 1; sides are rounded up, as MATLAB does.
        size: this very size, whatever it does to the aspect ratio.
        fit: the largest size of the same aspect ratio inside this one; no side falls below 1 px.

    Raises:
        InputError: not exactly one of the three is given, or it is not possible.
    """
    given = [name for name, value in (("scale", scale), ("size", size), ("fit", fit)) if value is not None]
    if len(given) != 1:
        raise InputError(
            f"give one of scale, size and fit; got {' and '.join(given) or 'none'}", code="size.impossible"
        )
    height, width = source
    if scale is not None:
        if not (scale >= 1 and math.isfinite(scale)):
            raise InputError(f"scale {scale:g} is not possible; give a factor of 1 or more", code="size.impossible")
        if scale * max(source) > _LONGEST:
            raise InputError(
                f"scale {scale:g} makes sides of more than {_LONGEST:,} px; give a smaller one", code="size.too-large"
            )
        # 100 * 2.7 is a little more than 270 in floating point.
        return math.ceil(height * scale - 1e-6), math.ceil(width * scale - 1e-6)
    wanted = size or fit
    if wanted is None or min(wanted) < 1:
        raise InputError(f"size {wanted} is not possible; both sides must be 1 px or more", code="size.impossible")
    if size is not None:
        return size
    factor = min(wanted[0] / height, wanted[1] / width)
    return max(1, math.floor(height * factor + 1e-6)), max(1, math.floor(width * factor + 1e-6))


def size_warning(source: Size, target: Size) -> str:
    """What a person may not expect of `target` as the size of a result: another aspect ratio, or no enlargement.

    Args:
        source: size of the input.
        target: size of the result. A side may be rounded up or down.

    Returns:
        One line, or nothing where all is as expected.
    """
    (height, width), (tall, wide) = source, target
    changes = []
    if abs(wide * height - tall * width) >= max(height, width):
        changes.append("the aspect ratio changes (fit keeps it)")
    if tall < height or wide < width:
        changes.append("the picture shrinks")
    return f"{width}x{height} px become {wide}x{tall}: {', '.join(changes)}" if changes else ""


def plan_passes(size: Size, target: Size, scales: Collection[int]) -> list[int]:
    """Which of the available `scales` (each 2 or more) to apply one after the other, so that `target` is reached.

    Each time the smallest that suffices, or the largest if none does. No pass where `target` is not larger than `size`.
    """
    (height, width), passes = size, []
    while height < target[0] or width < target[1]:
        enough = [s for s in scales if s * height >= target[0] and s * width >= target[1]]
        passes.append(min(enough) if enough else max(scales))
        height, width = height * passes[-1], width * passes[-1]
    return passes
