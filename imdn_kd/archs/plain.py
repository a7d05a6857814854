"""The plain family: chains of 3x3 convolutions with ReLU, the shape of network that CPUs and phones run fastest.

Layout after ABPN (Du et al., CVPR Workshops 2021, https://arxiv.org/abs/2105.09750): convolutions at the input size,
the repeated input added, one pixel shuffle. No layer has a bias and the kernels of the first one sum to zero. So
features are zero wherever the image is flat, and zero padding continues them as if the image went on: a flat picture
comes back exactly flat, corners included.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, SRNetwork, without_autocast
from imdn_kd.errors import InputError
from imdn_kd.registry import ARCHS


class ZeroSumConv2d(nn.Conv2d):
    """A 3x3 convolution without bias whose kernels sum to zero: 0 wherever the input is flat, its border included.

    Whatever the weights are, their mean over the nine positions is subtracted; the border of the input is repeated.
    Computed in fp32 or better, since rounded kernels do not sum to zero.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False, padding_mode="replicate")

    def forward(self, x: Tensor) -> Tensor:
        """From N x in_channels x H x W to N x out_channels x H x W."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        with without_autocast(x.device):
            weight = self.weight.to(dtype)
            result: Tensor = self._conv_forward(x.to(dtype), weight - weight.mean((2, 3), keepdim=True), None)
        return result.to(x.dtype)


@ARCHS.register
class Plain(SRNetwork):
    """Head, `num_block` 3x3 convolutions with ReLU, tail, pixel shuffle; the network adds detail to the repeated input.

    At scale 1 it can work on cells of 2x2 px, say, as FFDNet does (Zhang et al., TIP 2018,
    https://arxiv.org/abs/1710.04026): a quarter of the multi-adds, and it sees twice as far.

    Args:
        num_in_ch: channels of the image.
        num_feat: channels of the features.
        num_block: convolutions between head and tail.
        upscale: scale, 1 or more.
        unshuffle: side of the cells of pixels that become channels of the input, 1 or more; above 1 only at scale 1.
        separable: make the convolutions between head and tail of a 3x3 one of each channel by itself and a 1x1 one, as
            Gao et al. do in their student (ACCV 2018, https://doi.org/10.1007/978-3-030-20890-5_34): about an eighth of
            their weights and multi-adds.
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_feat: int = 32,
        num_block: int = 6,
        upscale: int = 4,
        unshuffle: int = 1,
        separable: bool = False,
    ) -> None:
        super().__init__()
        if min(upscale, num_block, num_feat, unshuffle) < 1:
            raise InputError(
                f"upscale {upscale}, num_block {num_block}, num_feat {num_feat} and unshuffle {unshuffle} are not "
                "possible; give 1 or more",
                code="network.invalid-option",
            )
        if upscale > 1 and unshuffle > 1:
            raise InputError(
                f"unshuffle {unshuffle} is for scale 1, not {upscale}; leave it out", code="network.invalid-option"
            )
        self.num_in_ch, self.num_block, self.upscale, self.side = num_in_ch, num_block, upscale, unshuffle
        self.unshuffle = nn.PixelUnshuffle(unshuffle) if unshuffle > 1 else nn.Identity()
        num_in_ch *= unshuffle**2
        self.head = nn.Sequential(ZeroSumConv2d(num_in_ch, num_feat), nn.ReLU(inplace=True))
        self.body = nn.Sequential(
            *(nn.Sequential(*_convolutions(num_feat, separable), nn.ReLU(inplace=True)) for _ in range(num_block))
        )
        self.tail = _conv3x3(num_feat, num_in_ch * upscale**2)
        self.shuffle = nn.PixelShuffle(upscale * unshuffle)
        self._initialise()

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        # In cells: one more, since a pixel may be the first of its cell, and the one that it depends on the last.
        radius = self.num_block + (2 if self.side == 1 else 3)
        return ModelInfo(
            scale=self.upscale,
            size_multiple=self.side,
            min_size=self.side,
            receptive_radius=self.side * radius,
            num_in_ch=self.num_in_ch,
        )

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        cells = self.unshuffle(image)
        detail = self.tail(self.body(self.head(cells))).unflatten(1, (-1, self.upscale**2))
        sr: Tensor = self.shuffle((detail + cells.unsqueeze(2)).flatten(1, 2))
        return sr

    @torch.no_grad()
    def _initialise(self) -> None:
        """Begin near the repeated input, with a body that passes its features on."""
        for convolution in self._body_convolutions():
            convolution.weight.mul_(0.2)
            kernels, inputs, side, _ = convolution.weight.shape
            channels = torch.arange(kernels)
            convolution.weight[channels, channels % inputs, side // 2, side // 2] += 1
        self.tail.weight.mul_(0.1)

    def _body_convolutions(self) -> Iterator[nn.Conv2d]:
        yield from (module for module in self.body.modules() if isinstance(module, nn.Conv2d))


@ARCHS.register
def plain_t(*, upscale: int = 4, num_in_ch: int = 3, unshuffle: int = 1) -> Plain:
    """Tiny: 16 channels, 14 to 19 thousand parameters."""
    return Plain(upscale=upscale, num_in_ch=num_in_ch, unshuffle=unshuffle, num_feat=16, num_block=5)


@ARCHS.register
def plain_s(*, upscale: int = 4, num_in_ch: int = 3, unshuffle: int = 1) -> Plain:
    """Small: 32 channels, 41 to 52 thousand parameters."""
    return Plain(upscale=upscale, num_in_ch=num_in_ch, unshuffle=unshuffle, num_feat=32, num_block=4)


@ARCHS.register
def plain_m(*, upscale: int = 4, num_in_ch: int = 3, unshuffle: int = 1) -> Plain:
    """Medium: 32 channels, 60 to 70 thousand parameters."""
    return Plain(upscale=upscale, num_in_ch=num_in_ch, unshuffle=unshuffle, num_feat=32, num_block=6)


@ARCHS.register
def plain_l(*, upscale: int = 4, num_in_ch: int = 3, unshuffle: int = 1) -> Plain:
    """Large: 40 channels, 150 to 163 thousand parameters."""
    return Plain(upscale=upscale, num_in_ch=num_in_ch, unshuffle=unshuffle, num_feat=40, num_block=10)


def _convolutions(channels: int, separable: bool) -> list[nn.Conv2d]:
    if not separable:
        return [_conv3x3(channels, channels)]
    by_channel = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return [by_channel, nn.Conv2d(channels, channels, 1, bias=False)]


def _conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
