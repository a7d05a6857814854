"""Device and precision of a network."""

from __future__ import annotations

from typing import Literal

import torch

from imdn_kd.errors import InputError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

_DTYPES = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str | torch.device) -> torch.device:
    """Return the device of that name; `auto` is a GPU if there is one.

    Raises:
        InputError: there is no such device here.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device {device!r} cannot be used here; use 'cpu' or 'auto'", code="inference.device"
        ) from error
    return chosen


def dtype_of(precision: Precision) -> torch.dtype:
    """Return the type of that name; `auto` is what is lossless to 8 bit: fp32.

    In bf16, 4 to 49 % of the 8-bit values of a result change, by up to 2 to 11 levels; see docs/speed.md.

    Raises:
        InputError: no such precision.
    """
    if precision not in _DTYPES:
        raise InputError(
            f"precision {precision!r} is unknown; choose one of {', '.join(_DTYPES)}", code="inference.precision"
        )
    return _DTYPES[precision]


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type of that name, for PyTorch to compute in.

    Raises:
        InputError: no such precision, or PyTorch cannot compute in it on the device.
    """
    if precision == "fp16" and device.type == "cpu":
        raise InputError(
            "precision 'fp16' needs a GPU; use 'bf16' or 'fp32' on the CPU",
            code="inference.precision",
        )
    return dtype_of(precision)
