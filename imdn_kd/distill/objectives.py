"""Objectives with a name of their own. Importing this module fills `imdn_kd.registry.OBJECTIVES`."""

from imdn_kd.distill.holistic import Holistic
from imdn_kd.distill.zooming import Upcycling

__all__ = ["Holistic", "Upcycling"]
