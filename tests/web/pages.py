"""Networks for pages, and what a page holds."""

from __future__ import annotations

from pathlib import Path

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.registry import ARCHS
from tests.inference.test_cropping import lively


def network(**options: object) -> SRNetwork:
    torch.manual_seed(0)
    return lively(ARCHS.build({"type": "Plain", "num_feat": 4, "num_block": 2, "upscale": 2, **options}).eval())


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
