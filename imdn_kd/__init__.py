"""A toolkit for small super-resolution networks of the IMDN family.

Distils a large network into a small student, measures the student, and upscales images of any size with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imdn_kd import losses
    from imdn_kd.archs.factory import create_model, list_models
    from imdn_kd.archs.wrapping import wrap
    from imdn_kd.data.patches import Patches
    from imdn_kd.data.store import StoreDataset
    from imdn_kd.distill.distiller import Distiller
    from imdn_kd.distill.holistic import HolisticTerm
    from imdn_kd.distill.hooks import FeatureHooks
    from imdn_kd.distill.layer_terms import FspTerm, VidTerm
    from imdn_kd.distill.teacher import Teacher
    from imdn_kd.distill.terms import ContrastiveTerm, FeatureTerm, LossTerm, OutputTerm
    from imdn_kd.distill.upcycling import UpcyclingTerm
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.metrics import psnr, ssim
    from imdn_kd.image.resize import imresize
    from imdn_kd.inference.cropping import AdaptiveCropping
    from imdn_kd.inference.model_file import ModelFile, load_model, save_model
    from imdn_kd.inference.upscaler import Upscaler

__version__ = "0.2.0"
__all__ = [
    "AdaptiveCropping",
    "ContrastiveTerm",
    "Distiller",
    "FeatureHooks",
    "FeatureTerm",
    "FspTerm",
    "HolisticTerm",
    "InputError",
    "LossTerm",
    "ModelFile",
    "OutputTerm",
    "Patches",
    "StoreDataset",
    "Teacher",
    "UpcyclingTerm",
    "Upscaler",
    "VidTerm",
    "__version__",
    "create_model",
    "imresize",
    "list_models",
    "load_model",
    "losses",
    "psnr",
    "save_model",
    "ssim",
    "wrap",
]

# Imported on first use: most of them need torch, which takes seconds.
_HOMES = {
    "AdaptiveCropping": "imdn_kd.inference.cropping",
    "ContrastiveTerm": "imdn_kd.distill.terms",
    "Distiller": "imdn_kd.distill.distiller",
    "FeatureHooks": "imdn_kd.distill.hooks",
    "FeatureTerm": "imdn_kd.distill.terms",
    "FspTerm": "imdn_kd.distill.layer_terms",
    "HolisticTerm": "imdn_kd.distill.holistic",
    "InputError": "imdn_kd.errors",
    "LossTerm": "imdn_kd.distill.terms",
    "ModelFile": "imdn_kd.inference.model_file",
    "OutputTerm": "imdn_kd.distill.terms",
    "Patches": "imdn_kd.data.patches",
    "StoreDataset": "imdn_kd.data.store",
    "Teacher": "imdn_kd.distill.teacher",
    "UpcyclingTerm": "imdn_kd.distill.upcycling",
    "Upscaler": "imdn_kd.inference.upscaler",
    "VidTerm": "imdn_kd.distill.layer_terms",
    "create_model": "imdn_kd.archs.factory",
    "imresize": "imdn_kd.image.resize",
    "list_models": "imdn_kd.archs.factory",
    "load_model": "imdn_kd.inference.model_file",
    "psnr": "imdn_kd.evaluation.metrics",
    "save_model": "imdn_kd.inference.model_file",
    "ssim": "imdn_kd.evaluation.metrics",
    "wrap": "imdn_kd.archs.wrapping",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the above
    if name == "losses":
        return importlib.import_module("imdn_kd.losses")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
