"""Every registered loss term. Importing this module fills `imdn_kd.registry.LOSS_TERMS`."""

from imdn_kd.distill.holistic import HolisticTerm
from imdn_kd.distill.layer_terms import FspTerm, VidTerm
from imdn_kd.distill.upcycling import UpcyclingTerm

__all__ = ["FspTerm", "HolisticTerm", "UpcyclingTerm", "VidTerm"]
