"""The ranges of what is trained in 8 bits, from the first batches of a run."""

from __future__ import annotations

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.archs.quantize import Range, observe_ranges, quantizable
from imdn_kd.training.loader import TrainLoader
from imdn_kd.training.schema import QuantizeOptions


def calibrate(loader: TrainLoader, network: SRNetwork, options: QuantizeOptions) -> dict[str, Range]:
    """Return the ranges of the inputs of convolutions, by their paths, from batches on the CPU.

    Args:
        loader: of all processes together, so that each of them finds the same ranges.
        network: with the weights that training starts from, on the CPU; it stays as it is.
        options: `train.quantize`.
    """
    iterations = loader.batches(0, options.calibration_iter, torch.device("cpu"))
    images = (batch["lq"] for batches in iterations for batch in batches)
    training = network.training
    try:
        return observe_ranges(network.eval(), images, quantizable(network, options.float_layers))
    finally:
        network.train(training)
