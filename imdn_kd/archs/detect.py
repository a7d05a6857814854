"""Telling a network of ours from the keys and shapes of its weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

Spec = dict[str, Any]


def detect(weights: Mapping[str, Tensor]) -> Spec | None:
    """Return the spec (`{"type": ..., **keywords}`) of the network that `weights` fit, or None if there is none.

    Keys are those of the official checkpoints, without `module.`.
    """
    for family in (_imdn, _imdn_as, _imdn_rtc, _imdn_rte, _plain):
        try:
            spec = family(weights)
        except (KeyError, IndexError, ValueError, ZeroDivisionError):
            continue
        if spec["num_block"] > 0:
            return spec
    return None


def _imdn(weights: Mapping[str, Tensor]) -> Spec:
    return {
        **_shared(weights, "fea_conv", r"IMDB\d+", "IMDB1", kept="c4"),
        "type": "IMDN",
        "upscale": _upscale(weights, "fea_conv", "upsampler.0"),
        "attention": any(".cca." in key for key in weights),
    }


def _imdn_as(weights: Mapping[str, Tensor]) -> Spec:
    return {**_shared(weights, "fea_conv.0", r"IMDB\d+", "IMDB1", kept="c4"), "type": "IMDN_AS"}


def _imdn_rtc(weights: Mapping[str, Tensor]) -> Spec:
    return {
        **_shared(weights, "model.0", r"model\.1\.sub\.\d+", "model.1.sub.0", kept="c4"),
        "type": "IMDN_RTC",
        "upscale": _upscale(weights, "model.0", "model.2"),
    }


def _imdn_rte(weights: Mapping[str, Tensor]) -> Spec:
    return {**_shared(weights, "fea_conv.0", r"block\d+", "block1", kept="c6"), "type": "IMDN_RTE"}


def _plain(weights: Mapping[str, Tensor]) -> Spec:
    num_feat, channels = weights["head.0.weight"].shape[:2]
    upscale = math.isqrt(weights["tail.weight"].shape[0] // channels)
    # At scale 1, 12 channels are three of cells of 2x2 px; colours are tried before grey.
    colours = next(
        (each for each in (3, 1) if upscale == 1 and math.isqrt(channels // each) ** 2 * each == channels), 0
    )
    return {
        "type": "Plain",
        "num_in_ch": colours or channels,
        "num_feat": num_feat,
        "num_block": sum(re.fullmatch(r"body\.\d+\.0\.weight", key) is not None for key in weights),
        "upscale": upscale,
        "unshuffle": math.isqrt(channels // colours) if colours else 1,
        "separable": "body.0.1.weight" in weights,
    }


def _shared(weights: Mapping[str, Tensor], head: str, block: str, first: str, *, kept: str) -> Spec:
    """The options that all members have; `kept` is the convolution of a block that ends with the distilled channels."""
    num_feat, num_in_ch = weights[f"{head}.weight"].shape[:2]
    blocks = {m.group() for key in weights if (m := re.match(rf"{block}(?=\.c1\.weight$)", key))}
    return {
        "num_in_ch": num_in_ch,
        "num_feat": num_feat,
        "num_block": len(blocks),
        "distillation_rate": weights[f"{first}.{kept}.weight"].shape[0] / num_feat,
    }


def _upscale(weights: Mapping[str, Tensor], head: str, tail: str) -> int:
    return math.isqrt(weights[f"{tail}.weight"].shape[0] // weights[f"{head}.weight"].shape[1])
