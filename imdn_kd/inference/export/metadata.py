"""What an exported file says about its network: flat texts by key, the same in every format."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from imdn_kd import __version__
from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.quantize import ranges_of
from imdn_kd.errors import InputError
from imdn_kd.inference.export.samples import sample
from imdn_kd.inference.memory import PeakMemory
from imdn_kd.inference.model_file import ModelFile

INPUT, OUTPUT = "image", "sr"
"""Names of the input and of the output, N x C x H x W and N x C x sH x sW, fp32."""

FILE = "imdn_kd.json"
"""Name of the metadata inside files that hold several."""

FORMAT = "imdn_kd.export.1"

_COLOURS = {1: "grey", 3: "RGB"}


def describe(model: ModelFile, name: str) -> dict[str, str]:
    """What a file says about `model`.

    Returns:
        `format` and `producer`; `name`; `scale`; `channels` and `colours` (`RGB`, `grey`); `value_range`, what stands
        for white in input and output, black being 0, which results may exceed; `size_multiple` and `min_size` of input
        sides, px; `receptive_radius`, px, empty if unknown; `global_pooling` and `enlarged_input` (`yes`, `no`; see
        `ModelInfo`); `pixel_bytes`, what PyTorch takes in memory for a px of the image; `input` and `output`, their
        names; `precision`; `card`, Markdown, and its part on `licence`, which only models with a card have.
    """
    info = model.network.info
    found = {
        "format": FORMAT,
        "producer": f"imdn_kd {__version__}",
        "name": name,
        "scale": str(info.scale),
        "channels": str(info.num_in_ch),
        "colours": _COLOURS.get(info.num_in_ch, f"{info.num_in_ch} channels"),
        "value_range": f"{model.value_range:g}",
        "size_multiple": str(info.size_multiple),
        "min_size": str(info.min_size),
        "receptive_radius": "" if info.receptive_radius is None else str(info.receptive_radius),
        "global_pooling": _word(bool(info.global_pool_modules)),
        "enlarged_input": _word(info.enlarged_input),
        "pixel_bytes": str(_pixel_bytes(model.network)),
        "input": INPUT,
        "output": OUTPUT,
        "precision": "int8" if ranges_of(model.network.state_dict()) else "fp32",
    }
    licence = re.search(r"^## Data and licences\n+(.*?)\s*(?=^## |\Z)", model.card, re.MULTILINE | re.DOTALL)
    return found | ({"card": model.card} if model.card else {}) | ({"licence": licence[1]} if licence else {})


def read_info(metadata: Mapping[str, str]) -> tuple[ModelInfo, float]:
    """The info and the range of values that `describe` wrote.

    Raises:
        InputError: `export.foreign`: written by something else, or damaged.
    """
    try:
        if metadata["format"] != FORMAT:
            raise ValueError(metadata["format"])
        scale, channels, multiple, smallest = (
            int(metadata[key]) for key in ("scale", "channels", "size_multiple", "min_size")
        )
        radius, value_range = metadata["receptive_radius"], float(metadata["value_range"])
        if min(scale, channels, multiple, smallest, int(radius or 1) + 1) < 1 or not 0 < value_range < float("inf"):
            raise ValueError("numbers out of range")
        info = ModelInfo(
            scale=scale,
            size_multiple=multiple,
            min_size=smallest,
            receptive_radius=int(radius) if radius else None,
            global_pool_modules=("",) if metadata["global_pooling"] == "yes" else (),
            num_in_ch=channels,
            enlarged_input=metadata["enlarged_input"] == "yes",
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            "was not written by imdn-kd export, so its scale, sizes and range of values are unknown; export the "
            "network again",
            code="export.foreign",
        ) from error
    return info, value_range


def _pixel_bytes(network: SRNetwork) -> int:
    image = sample(network.info, side=48)
    with torch.no_grad(), PeakMemory() as memory:
        network(image)
    return int(memory.peak) // (image.shape[2] * image.shape[3])


def _word(value: bool) -> str:
    return "yes" if value else "no"
