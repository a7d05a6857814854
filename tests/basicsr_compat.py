"""BasicSR as something to compare with, where it is installed."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import pytest

from imdn_kd.integrations import basicsr_networks

INSTALLED = importlib.util.find_spec("basicsr") is not None

needs_basicsr = pytest.mark.skipif(not INSTALLED, reason="BasicSR is not installed")


def import_basicsr(name: str) -> ModuleType:
    """Import a module of BasicSR, or skip the test."""
    if not INSTALLED:
        pytest.skip("BasicSR is not installed")
    return basicsr_networks.import_basicsr(name)
