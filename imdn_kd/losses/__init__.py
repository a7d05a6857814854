"""Losses. Importing this package fills `imdn_kd.registry.LOSSES`."""

from imdn_kd.losses.pixel import CharbonnierLoss, FFTLoss, L1Loss, MSELoss

__all__ = ["CharbonnierLoss", "FFTLoss", "L1Loss", "MSELoss"]
