from __future__ import annotations

import copy
import io
import logging
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs import IMDN_RTC, SRNetwork
from imdn_kd.archs.wrapping import wrap
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.registry import ARCHS
from tests.refused import refused


class Own(nn.Module):
    """A network of a user: 5x5, then something, then 3x3; the bilinear skip reaches one pixel."""

    def __init__(self, between: nn.Module | None = None, channels: int = 3, upscale: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 5, padding=2)
        self.between = between or nn.ReLU()
        self.last = nn.Conv2d(8, channels * upscale**2, 3, padding=1)
        self.shuffle = nn.PixelShuffle(upscale)
        self.upscale = upscale

    def forward(self, image: Tensor) -> Tensor:
        skip = F.interpolate(image, scale_factor=self.upscale, mode="bilinear")
        return self.shuffle(self.last(self.between(self.first(image)))) + skip


class Gate(nn.Module):
    """Pools by a function, not by a module."""

    def forward(self, x: Tensor) -> Tensor:
        return x * x.mean((2, 3), keepdim=True).sigmoid()


class Windows(nn.Module):
    """Cuts the image into windows of 8 px itself, so a crop is cut elsewhere."""

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[2:]
        means = F.avg_pool2d(F.pad(image, (0, -width % 8, 0, -height % 8)), 8)
        return image + F.interpolate(means, scale_factor=8)[..., :height, :width]


class Inside(nn.Module):
    """A network of the toolkit of which nothing is known from outside."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.net = network

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


class InPlace(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image.mul_(0.5), scale_factor=2)


def own(*args: object, **keywords: object) -> nn.Module:
    torch.manual_seed(0)
    return Own(*args, **keywords)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imdn_s", "imdn_as", "imdn_rtc", "imdn_rte", "plain_t"])
def test_what_is_measured_is_what_networks_state(name):
    network = ARCHS.build({"type": name})
    stated, measured = network.info, wrap(Inside(network)).info
    assert measured.global_pool_modules == tuple(f"net.{path}" for path in stated.global_pool_modules)
    for key in ("scale", "size_multiple", "min_size", "receptive_radius", "num_in_ch"):
        assert getattr(measured, key) == getattr(stated, key), key


@pytest.mark.parametrize(
    ("module", "radius", "pools"),
    [
        (own(), 3, ()),
        (own(nn.Conv2d(8, 8, (1, 41), padding=(0, 20))), 23, ()),
        (own(nn.Conv2d(8, 8, 3, padding=40, dilation=40)), 43, ()),
        (own(nn.Sequential(*(nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(60)))), 63, ()),
        (own(nn.InstanceNorm2d(8)), 3, ("between",)),
        (own(Gate()), 3, ("between",)),
        (own(nn.Sequential(Gate(), nn.Conv2d(8, 8, 3, padding=1), Gate())), 4, ("between.0", "between.2")),
        (Windows(), None, ()),
    ],
)
def test_receptive_field_and_global_pooling(module, radius, pools):
    info = wrap(module).info
    assert (info.receptive_radius, info.global_pool_modules) == (radius, pools)


@pytest.mark.parametrize("module", [own(), own(nn.Conv2d(8, 8, (1, 41), padding=(0, 20))), Inside(IMDN_RTC())])
def test_crops_give_the_result_of_the_whole_image(module):
    image = torch.rand(1, 3, 70, 61, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = module(image)
    assert (AdaptiveCropping(wrap(module), crop_size=16)(image) - whole).abs().max() <= 1e-5


def test_a_network_that_pools_globally_is_run_whole():
    module = own(Gate())
    image = torch.rand(1, 3, 40, 30, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(AdaptiveCropping(wrap(module), crop_size=16)(image), module(image))


def test_the_module_stays_as_it_is_and_shares_its_weights():
    module = own().train()
    network = wrap(module)
    assert isinstance(network, SRNetwork)
    assert isinstance(network, Own)
    assert type(module) is Own
    assert module.training
    assert list(network.state_dict()) == list(module.state_dict())
    assert network.first.weight is module.first.weight
    assert wrap(network) is network


def test_what_was_found_is_one_readable_line(caplog):
    caplog.set_level(logging.INFO, "imdn_kd")
    line = "x2, 3 channels, sides from 1 px, receptive field 3 px around a pixel, global pooling in between"
    assert str(wrap(own(Gate())).info) == line
    assert caplog.messages == [f"Own: {line}"]
    assert "receptive field unknown, no global pooling" in str(wrap(Windows()).info)


def test_channels_are_those_of_the_first_convolution():
    assert wrap(own(channels=1)).info.num_in_ch == 1
    assert wrap(nn.Upsample(scale_factor=2), num_in_ch=4).info.num_in_ch == 4


def test_an_image_is_not_changed():
    image = torch.ones(1, 3, 4, 4)
    wrap(InPlace())(image)
    assert image.min() == 1


def test_attributes_of_the_module_are_not_hidden():
    class Named(Own):
        info = 2

        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image) * self.info

    network = wrap(Named(Gate()))
    assert network.info.global_pool_modules == ("0.between",)
    assert network(torch.rand(1, 3, 8, 8)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_are_equal_and_apart(copied):
    network = wrap(own())
    again, image = copied(network), torch.rand(1, 3, 8, 8)
    assert torch.equal(again(image), network(image))
    assert again.info == network.info
    assert again.first.weight is not network.first.weight
    torch.save(network, buffer := io.BytesIO())
    buffer.seek(0)
    assert torch.equal(torch.load(buffer, weights_only=False)(image), network(image))


class Diverged(Own):
    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image) / 0


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: wrap(torch.sin), "model.not-a-module"),
        (lambda: wrap(torch.jit.script(nn.ReLU())), "model.not-a-module"),
        (lambda: wrap(Own(), 3), "model.scale-mismatch"),
        (lambda: wrap(IMDN_RTC(), 4), "model.scale-mismatch"),
        (lambda: wrap(nn.Conv2d(3, 4, 3, padding=1)), "model.not-super-resolution"),
        (lambda: wrap(nn.Linear(3, 3)), "model.not-super-resolution"),
        (lambda: wrap(Diverged()), "model.not-finite"),
    ],
)
def test_what_is_no_super_resolution_network_is_refused(call, code):
    with refused(code) as caught:
        call()
    assert "\n" not in str(caught.value)
