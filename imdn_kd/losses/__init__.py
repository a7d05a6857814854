"""Losses between images and between feature maps. Importing this package fills `imdn_kd.registry.LOSSES`."""

from imdn_kd.losses.affinity import (
    ChannelAffinityLoss,
    InstanceAffinityLoss,
    InstanceCosineLoss,
    PairwiseLoss,
    SpatialAffinityLoss,
)
from imdn_kd.losses.attention import AttentionLoss
from imdn_kd.losses.contrastive import ContrastiveLoss
from imdn_kd.losses.distribution import ChannelDistributionLoss, MmdLoss
from imdn_kd.losses.frequency import FrequencyBandLoss, WaveletLoss
from imdn_kd.losses.local_similarity import LocalSimilarityLoss
from imdn_kd.losses.mimic import MimicLoss
from imdn_kd.losses.pixel import CharbonnierLoss, FFTLoss, L1Loss, MSELoss
from imdn_kd.losses.statistics import StatisticsLoss

__all__ = [
    "AttentionLoss",
    "ChannelAffinityLoss",
    "ChannelDistributionLoss",
    "CharbonnierLoss",
    "ContrastiveLoss",
    "FFTLoss",
    "FrequencyBandLoss",
    "InstanceAffinityLoss",
    "InstanceCosineLoss",
    "L1Loss",
    "LocalSimilarityLoss",
    "MSELoss",
    "MimicLoss",
    "MmdLoss",
    "PairwiseLoss",
    "SpatialAffinityLoss",
    "StatisticsLoss",
    "WaveletLoss",
]
