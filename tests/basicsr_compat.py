"""BasicSR as something to compare with, where it is installed."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest


def import_basicsr(name: str) -> ModuleType:
    """Import a module of BasicSR, or skip the test.

    Its 2022 release needs a module that torchvision has since removed.
    """
    functional = pytest.importorskip("torchvision.transforms.functional")
    sys.modules.setdefault("torchvision.transforms.functional_tensor", functional)
    return pytest.importorskip(name)
