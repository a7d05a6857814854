"""The checkpoints released with the IMDN paper, where they are on hand."""

import torch
from torch import Tensor

from imdn_kd.inference.model_file import ModelFile, load_model
from tests.shared_data import SHARED

FOLDER = SHARED / "weights" / "imdn_official"
FILES = {
    "IMDN_x2": "IMDN_x2.pth",
    "IMDN_x3": "IMDN_x3.pth",
    "IMDN_x4": "IMDN_x4.pth",
    "IMDN_AS": "IMDN_AS.pth",
    "IMDN_RTC": "model_RTC.pth",
    "IMDN_RTE": "model_RTE.pth",
}


def official(name: str) -> ModelFile:
    return load_model(FOLDER / FILES[name])


def official_weights(name: str) -> dict[str, Tensor]:
    weights = torch.load(FOLDER / FILES[name], map_location="cpu", weights_only=True)
    return {key.removeprefix("module."): value for key, value in weights.items()}
