"""Networks. Importing this package fills `imdn_kd.registry.ARCHS`."""

from imdn_kd.archs.base import ModelInfo, Segment, SRNetwork, Statistics
from imdn_kd.archs.imdn import CCA, IMDB, IMDN, IMDN_AS, IMDN_RTC, IMDN_RTE
from imdn_kd.archs.plain import Plain

__all__ = [
    "CCA",
    "IMDB",
    "IMDN",
    "IMDN_AS",
    "IMDN_RTC",
    "IMDN_RTE",
    "ModelInfo",
    "Plain",
    "SRNetwork",
    "Segment",
    "Statistics",
]
