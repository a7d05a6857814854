"""The IMDN family.

Hui et al., "Lightweight Image Super-Resolution with Information Multi-distillation Network", ACM Multimedia 2019,
https://arxiv.org/abs/1909.11856.
Module names follow the official checkpoints, so these load strictly.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs.base import ModelInfo, Segment, SRNetwork, Statistics
from imdn_kd.errors import InputError
from imdn_kd.registry import ARCHS

SLOPE = 0.05
"""Negative slope of the leaky ReLUs."""


def map_statistics(x: Tensor) -> Statistics:
    """Mean and population standard deviation of each channel of `x` (N x C x H x W) over its pixels, in fp32 or better.

    The derivative of the square root is infinite where a channel is flat; there the standard deviation is 0 and its
    gradient is taken as 0, so that training survives flat patches without an epsilon that would change values.
    """
    x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean = x.mean((2, 3), keepdim=True)
    variance = (x - mean).square().mean((2, 3), keepdim=True)
    if not variance.requires_grad:
        return Statistics(mean, variance.sqrt())
    varies = variance > 0
    return Statistics(mean, torch.where(varies, torch.where(varies, variance, 1).sqrt(), 0))


class CCA(nn.Module):
    """Contrast-aware channel attention: channels are scaled by a function of mean + standard deviation.

    Input and output N x C x H x W.
    """

    def __init__(self, num_feat: int, reduction: int = 16) -> None:
        super().__init__()
        squeezed = max(1, num_feat // reduction)
        self.conv_du = nn.Sequential(
            nn.Conv2d(num_feat, squeezed, 1), nn.ReLU(inplace=True), nn.Conv2d(squeezed, num_feat, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor, statistics: Statistics | None = None) -> Tensor:
        """Scale the channels of `x`, by `statistics` if `x` is only part of the map to which they belong."""
        mean, std = map_statistics(x) if statistics is None else statistics
        scale: Tensor = self.conv_du((mean + std).to(x.dtype))
        return x * scale


class IMDB(nn.Module):
    """Information multi-distillation block, N x num_feat x H x W to the same.

    Args:
        num_feat: channels of the block.
        distillation_rate: share of the channels kept at each of the three splits.
        attention: whether the fused features pass through CCA (IMDN) or not (IMDN_RTC).
    """

    RADIUS = 4
    """Receptive radius in px, with the statistics of CCA held fixed: four 3x3 convolutions in a row."""

    def __init__(self, num_feat: int = 64, distillation_rate: float = 0.25, *, attention: bool = True) -> None:
        super().__init__()
        self.kept = _share(num_feat, distillation_rate)
        if not 0 < self.kept < num_feat:
            raise InputError(
                f"distillation_rate {distillation_rate} keeps {self.kept} of {num_feat} channels; keep some, not all",
                code="network.invalid-option",
            )
        self.passed = num_feat - self.kept
        self.c1 = _conv3x3(num_feat, num_feat)
        self.c2 = _conv3x3(self.passed, num_feat)
        self.c3 = _conv3x3(self.passed, num_feat)
        self.c4 = _conv3x3(self.passed, self.kept)
        self.act = nn.LeakyReLU(SLOPE, inplace=True)
        self.cca = CCA(4 * self.kept) if attention else None
        self.c5 = nn.Conv2d(4 * self.kept, num_feat, 1)

    def distil(self, x: Tensor) -> Tensor:
        """The four distilled parts of `x`, N x 4*kept x H x W: all that comes before the global pooling."""
        sizes = (self.kept, self.passed)
        kept1, passed = self.act(self.c1(x)).split(sizes, 1)
        kept2, passed = self.act(self.c2(passed)).split(sizes, 1)
        kept3, passed = self.act(self.c3(passed)).split(sizes, 1)
        return torch.cat((kept1, kept2, kept3, self.c4(passed)), 1)

    def fuse(self, x: Tensor, distilled: Tensor, statistics: Statistics | None = None) -> Tensor:
        """The output of the block from its input `x` and its distilled parts; `statistics` as in CCA."""
        if self.cca is not None:
            distilled = self.cca(distilled, statistics)
        fused: Tensor = self.c5(distilled)
        return fused + x

    def forward(self, x: Tensor) -> Tensor:
        """Run the block on a whole map."""
        return self.fuse(x, self.distil(x))


class _IMDNBody(SRNetwork):
    """Head, blocks, fusion and tail shared by IMDN and IMDN_AS, which differ in the head and in the scale."""

    fea_conv: nn.Module

    def __init__(
        self,
        num_in_ch: int,
        num_feat: int,
        num_block: int,
        distillation_rate: float,
        tail_factor: int,
        *,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        self.num_block = num_block
        self.attention = attention
        for k in range(1, num_block + 1):
            self.add_module(f"IMDB{k}", IMDB(num_feat, distillation_rate, attention=attention))
        self.c = nn.Sequential(nn.Conv2d(num_feat * num_block, num_feat, 1), nn.LeakyReLU(SLOPE, inplace=True))
        self.LR_conv = _conv3x3(num_feat, num_feat)
        self.upsampler = _pixel_shuffle_tail(num_feat, num_in_ch, tail_factor)

    @property
    def blocks(self) -> list[IMDB]:
        """The blocks, first to last."""
        return [self.get_submodule(f"IMDB{k}") for k in range(1, self.num_block + 1)]  # type: ignore[misc]

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W, sides multiples of `info.size_multiple`."""
        head = x = self.fea_conv(image)
        outputs = [x := block(x) for block in self.blocks]
        return self._tail(head, outputs)

    def _tail(self, head: Tensor, outputs: list[Tensor]) -> Tensor:
        sr: Tensor = self.upsampler(self.LR_conv(self.c(torch.cat(outputs, 1))) + head)
        return sr

    def _global_pools(self) -> tuple[str, ...]:
        return tuple(f"IMDB{k}.cca" for k in range(1, self.num_block + 1)) if self.attention else ()

    def _cut(self, head_radius: int, step: int) -> list[Segment]:
        """The segments; `head_radius` in px of the image, `step` px of the image per px of the features."""
        blocks = self.blocks
        last = len(blocks)
        names = ["head", *(f"block{k}" for k in range(1, last))]

        def enter(features: Mapping[str, Tensor], _: Statistics | None) -> dict[str, Tensor]:
            head = self.fea_conv(features["image"])
            return {"head": head, "distilled1": blocks[0].distil(head)}

        def between(k: int) -> Segment:
            def run(features: Mapping[str, Tensor], statistics: Statistics | None) -> dict[str, Tensor]:
                x = blocks[k - 1].fuse(features[names[k - 1]], features[f"distilled{k}"], statistics)
                return {names[k]: x, f"distilled{k + 1}": blocks[k].distil(x)}

            return Segment((names[k - 1], f"distilled{k}"), run, IMDB.RADIUS * step, global_stat=f"distilled{k + 1}")

        def leave(features: Mapping[str, Tensor], statistics: Statistics | None) -> dict[str, Tensor]:
            inputs = [features[name] for name in names]
            final = blocks[-1].fuse(inputs[-1], features[f"distilled{last}"], statistics)
            return {"sr": self._tail(inputs[0], [*inputs[1:], final])}

        return [
            Segment(("image",), enter, head_radius + IMDB.RADIUS * step, global_stat="distilled1"),
            *(between(k) for k in range(1, last)),
            Segment((*names, f"distilled{last}"), leave, 2 * step),
        ]


@ARCHS.register
class IMDN(_IMDNBody):
    """IMDN: upscales by `upscale`; with upscale 1 a restoration network.

    Args:
        num_in_ch: channels of the image.
        num_feat: channels of the features (64 in the paper).
        num_block: number of blocks (6 in the paper).
        upscale: scale, 1 or more.
        distillation_rate: share of the channels kept at each split.
        attention: whether blocks have contrast-aware channel attention.
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 6,
        upscale: int = 4,
        distillation_rate: float = 0.25,
        attention: bool = True,
    ) -> None:
        super().__init__(num_in_ch, num_feat, num_block, distillation_rate, upscale, attention=attention)
        self.upscale = upscale
        self.fea_conv = _conv3x3(num_in_ch, num_feat)

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        return ModelInfo(
            scale=self.upscale,
            receptive_radius=1 + IMDB.RADIUS * self.num_block + 2,
            global_pool_modules=self._global_pools(),
            num_in_ch=self.num_in_ch,
        )

    def segments(self) -> list[Segment]:
        """See `SRNetwork.segments`."""
        return self._cut(head_radius=1, step=1) if self.attention else super().segments()


@ARCHS.register
class IMDN_AS(_IMDNBody):  # noqa: N801 - the name of the paper
    """IMDN for any scale: the input is the image already upscaled to the wanted size.

    Two convolutions of stride 2 bring it down to a quarter, the body works there, and an x4 tail brings it back.
    Arguments as in IMDN; it always has attention, and no `upscale`.
    """

    STEP = 4

    def __init__(
        self, *, num_in_ch: int = 3, num_feat: int = 64, num_block: int = 6, distillation_rate: float = 0.25
    ) -> None:
        super().__init__(num_in_ch, num_feat, num_block, distillation_rate, self.STEP)
        self.fea_conv = nn.Sequential(
            nn.Conv2d(num_in_ch, num_feat, 3, 2, 1),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(num_feat, num_feat, 3, 2, 1),
        )

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        return ModelInfo(
            scale=1,
            size_multiple=self.STEP,
            min_size=self.STEP,
            receptive_radius=self.STEP * (1 + IMDB.RADIUS * self.num_block + 2),
            global_pool_modules=self._global_pools(),
            num_in_ch=self.num_in_ch,
            enlarged_input=True,
        )

    def segments(self) -> list[Segment]:
        """See `SRNetwork.segments`."""
        # The head reaches 3 px beyond the 4 px of a feature pixel: one step, since crops are cut in whole steps.
        return self._cut(head_radius=self.STEP, step=self.STEP)


class _Shortcut(nn.Module):
    """x + sub(x)."""

    def __init__(self, sub: nn.Sequential) -> None:
        super().__init__()
        self.sub = sub

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.sub(x)
        return result


@ARCHS.register
class IMDN_RTC(SRNetwork):  # noqa: N801 - the name of the authors
    """The small IMDN of the competition "AI in RTC" 2019: few features, no channel attention, no global pooling.

    Arguments as in IMDN, but for `attention`.
    """

    def __init__(
        self,
        *,
        num_in_ch: int = 3,
        num_feat: int = 12,
        num_block: int = 5,
        upscale: int = 2,
        distillation_rate: float = 0.25,
    ) -> None:
        super().__init__()
        blocks = [IMDB(num_feat, distillation_rate, attention=False) for _ in range(num_block)]
        self.model = nn.Sequential(
            _conv3x3(num_in_ch, num_feat),
            _Shortcut(nn.Sequential(*blocks, nn.Conv2d(num_feat, num_feat, 1))),
            *_pixel_shuffle_tail(num_feat, num_in_ch, upscale),
        )
        self.upscale, self.num_block, self.num_in_ch = upscale, num_block, num_in_ch

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        return ModelInfo(
            scale=self.upscale, receptive_radius=1 + IMDB.RADIUS * self.num_block + 1, num_in_ch=self.num_in_ch
        )

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W."""
        sr: Tensor = self.model(image)
        return sr


class _SixWayBlock(nn.Module):
    """Distillation block of IMDN_RTE: five splits, ReLU, no bias, N x num_feat x H x W to the same."""

    RADIUS = 6

    def __init__(self, num_feat: int, distillation_rate: float) -> None:
        super().__init__()
        kept = _share(num_feat, distillation_rate)
        passed = num_feat - kept
        if not 0 < 3 * kept < passed + kept:
            raise InputError(
                f"distillation_rate {distillation_rate} keeps {kept} of {num_feat} channels; use less than 1/3",
                code="network.invalid-option",
            )
        self.kept = kept
        self.c1 = _conv3x3(num_feat, num_feat, bias=False)
        self.c2 = _conv3x3(passed, num_feat, bias=False)
        self.c3 = _conv3x3(passed, num_feat, bias=False)
        self.c4 = _conv3x3(passed, passed, bias=False)
        self.c5 = _conv3x3(passed - kept, passed - kept, bias=False)
        self.c6 = _conv3x3(passed - 2 * kept, kept, bias=False)
        self.c7 = nn.Conv2d(6 * kept, num_feat, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts, passed = [], x
        for conv in (self.c1, self.c2, self.c3, self.c4, self.c5):
            y = F.relu(conv(passed), inplace=True)
            parts.append(y[:, : self.kept])
            passed = y[:, self.kept :]
        parts.append(F.relu(self.c6(passed), inplace=True))
        result: Tensor = self.c7(torch.cat(parts, 1)) + x
        return result


@ARCHS.register
class IMDN_RTE(SRNetwork):  # noqa: N801 - the name of the authors
    """The IMDN of the competition "AI in RTE" 2020, which works at half the size of the input: x2 with a tail of x4.

    No global pooling. The released weights were trained for images with noise, on values in 0..255. Arguments as in
    IMDN; the scale is 2.
    """

    def __init__(
        self, *, num_in_ch: int = 3, num_feat: int = 20, num_block: int = 6, distillation_rate: float = 0.25
    ) -> None:
        super().__init__()
        self.fea_conv = nn.Sequential(
            _conv3x3(num_in_ch, num_feat), nn.ReLU(inplace=True), nn.Conv2d(num_feat, num_feat, 3, 2, 1, bias=False)
        )
        for k in range(1, num_block + 1):
            self.add_module(f"block{k}", _SixWayBlock(num_feat, distillation_rate))
        self.LR_conv = nn.Conv2d(num_feat, num_feat, 1, bias=False)
        self.upsampler = _pixel_shuffle_tail(num_feat, num_in_ch, 4)
        self.num_block, self.num_in_ch = num_block, num_in_ch

    @property
    def info(self) -> ModelInfo:
        """See `SRNetwork.info`."""
        # The head reaches 2 px beyond a feature pixel, the blocks and the tail count in feature pixels of 2 px.
        receptive_radius = 2 + 2 * (_SixWayBlock.RADIUS * self.num_block + 1)
        return ModelInfo(
            scale=2, size_multiple=2, min_size=2, receptive_radius=receptive_radius, num_in_ch=self.num_in_ch
        )

    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W by 2, sides even."""
        head = x = self.fea_conv(image)
        for k in range(1, self.num_block + 1):
            x = self.get_submodule(f"block{k}")(x)
        sr: Tensor = self.upsampler(self.LR_conv(x) + head)
        return sr


@ARCHS.register
def imdn(*, upscale: int = 4, num_in_ch: int = 3) -> IMDN:
    """The network of the paper: 64 features, 6 blocks."""
    return IMDN(upscale=upscale, num_in_ch=num_in_ch)


@ARCHS.register
def imdn_s(*, upscale: int = 4, num_in_ch: int = 3) -> IMDN:
    """Half the width of `imdn`: a student."""
    return IMDN(upscale=upscale, num_in_ch=num_in_ch, num_feat=32)


@ARCHS.register
def imdn_l(*, upscale: int = 4, num_in_ch: int = 3) -> IMDN:
    """Twice the width and depth of `imdn`: the in-house teacher."""
    return IMDN(upscale=upscale, num_in_ch=num_in_ch, num_feat=128, num_block=12)


@ARCHS.register
def imdn_as(*, num_in_ch: int = 3) -> IMDN_AS:
    """Any scale from one model."""
    return IMDN_AS(num_in_ch=num_in_ch)


@ARCHS.register
def imdn_rtc(*, upscale: int = 2, num_in_ch: int = 3) -> IMDN_RTC:
    """About 20 thousand parameters."""
    return IMDN_RTC(upscale=upscale, num_in_ch=num_in_ch)


@ARCHS.register
def imdn_rte(*, num_in_ch: int = 3) -> IMDN_RTE:
    """About 90 thousand parameters at half the input's size; x2."""
    return IMDN_RTE(num_in_ch=num_in_ch)


def _conv3x3(channels_in: int, channels_out: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=bias)


def _pixel_shuffle_tail(num_feat: int, channels: int, factor: int) -> nn.Sequential:
    if factor < 1:
        raise InputError(f"upscale {factor} is not possible; give 1 or more", code="network.invalid-option")
    return nn.Sequential(_conv3x3(num_feat, channels * factor**2), nn.PixelShuffle(factor))


def _share(num_feat: int, rate: float) -> int:
    # A little is added since 57 / 100 * 100 is less than 57.
    return int(num_feat * rate + 1e-9)
