"""A toolkit for small super-resolution networks of the IMDN family.

Distils a large network into a small student, measures the student, and enlarges pictures of any size with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imdn_kd.errors import InputError
    from imdn_kd.inference.cropping import AdaptiveCropping
    from imdn_kd.inference.model_file import ModelFile, load_model, save_model
    from imdn_kd.inference.upscaler import Upscaler

__version__ = "0.1.0"
__all__ = ["AdaptiveCropping", "InputError", "ModelFile", "Upscaler", "__version__", "load_model", "save_model"]

# Imported on first use: most of them need torch, which takes seconds.
_HOMES = {
    "AdaptiveCropping": "imdn_kd.inference.cropping",
    "InputError": "imdn_kd.errors",
    "ModelFile": "imdn_kd.inference.model_file",
    "Upscaler": "imdn_kd.inference.upscaler",
    "load_model": "imdn_kd.inference.model_file",
    "save_model": "imdn_kd.inference.model_file",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
