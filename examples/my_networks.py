"""A network and a loss of your own; the option file beside this one names this file under `imports`."""

import torch
from torch import Tensor, nn

from imdn_kd.losses.base import PixelLoss
from imdn_kd.registry import ARCHS, LOSSES


@ARCHS.register
class SmallNet(nn.Module):
    """Any module from N x 3 x H x W to N x 3 x sH x sW will do; its options are plain values."""

    def __init__(self, width: int = 16, depth: int = 3, upscale: int = 2) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, width, 3, padding=1)
        layers = [nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.tail = nn.Sequential(nn.Conv2d(width, 3 * upscale**2, 3, padding=1), nn.PixelShuffle(upscale))
        self.skip = nn.Upsample(scale_factor=upscale, mode="nearest")

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images."""
        return self.tail(self.body(self.head(image))) + self.skip(image)


@LOSSES.register
class EdgeLoss(PixelLoss):
    """L1 between the differences of neighbouring pixels."""

    def compute(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the loss of two batches of images of the same shape."""
        difference = sr - gt
        return torch.stack([difference.diff(dim=axis).abs().mean() for axis in (2, 3)]).mean()
