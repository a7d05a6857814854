import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from imdn_kd.archs import ModelInfo
from imdn_kd.archs.probing import measure_info
from imdn_kd.registry import ARCHS
from tests.refused import refused


def info(**values) -> ModelInfo:
    return ModelInfo(receptive_radius=None, **values)


class Mirrored(nn.Module):
    """Needs more than 5 px for its mirrored border."""

    def forward(self, image: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(image, (5, 5, 5, 5), mode="reflect"), 11, 1)


class ReadsNumbers(nn.Module):
    """Makes a decision on the values, for which there must be some."""

    def forward(self, image: Tensor) -> Tensor:
        return F.interpolate(image, scale_factor=2) if image.sum().item() < 1 else image


class FixedSize(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(60, 60))

    def forward(self, image: Tensor) -> Tensor:
        return image + self.table


class Pair(nn.Module):
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return image, image


def halved(channels: int = 3) -> nn.Module:
    """Runs on odd sides too, but then its result is larger than the image."""
    return nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.Conv2d(8, channels * 4, 3, 1, 1), nn.PixelShuffle(2))


def in_blocks(side: int, body: nn.Module) -> nn.Module:
    return nn.Sequential(nn.PixelUnshuffle(side), body, nn.PixelShuffle(side))


@pytest.mark.parametrize(
    ("network", "channels", "expected"),
    [
        (nn.Upsample(scale_factor=3), 1, info(scale=3, num_in_ch=1)),
        (halved(), 3, info(scale=1, size_multiple=2, min_size=2)),
        (halved(4), 4, info(scale=1, size_multiple=2, min_size=2, num_in_ch=4)),
        (in_blocks(6, nn.Upsample(scale_factor=2)), 1, info(scale=2, size_multiple=6, min_size=6, num_in_ch=1)),
        (in_blocks(13, nn.Identity()), 3, info(scale=1, size_multiple=13, min_size=13)),
        (Mirrored(), 3, info(scale=1, min_size=6)),
        (in_blocks(4, Mirrored()), 3, info(scale=1, size_multiple=4, min_size=24)),
        (ReadsNumbers(), 3, info(scale=2)),
    ],
)
def test_scale_and_sizes(network, channels, expected):
    assert measure_info(network, channels) == expected


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), "it makes 1x4x48x48 of 1x3x48x48"),
        (nn.MaxPool2d(2), "it makes 1x3x24x24"),
        (nn.Upsample(scale_factor=1.5), "it makes 1x3x72x72"),
        (nn.Upsample(scale_factor=(2.0, 3.0)), "it makes 1x3x96x144"),
        (nn.Flatten(), "it makes 1x6912 of"),
        (Pair(), "something else than a tensor"),
        (FixedSize(), "images of one size only (60x60 px)"),
        (nn.Linear(3, 3), "it fails on images 1x3xHxW (RuntimeError: "),
    ],
)
def test_what_does_not_enlarge_an_image_is_one_line(network, reason):
    with refused("model.not-super-resolution") as caught:
        measure_info(network, 3)
    assert str(caught.value).startswith(f"{type(network).__name__} cannot be used")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARCHS if name != "imdn_l"])
def test_networks_that_state_their_info_agree(name):
    network = ARCHS.build({"type": name})
    measured = measure_info(network, 3)
    stated = network.info
    assert (measured.scale, measured.size_multiple, measured.min_size) == (
        stated.scale,
        stated.size_multiple,
        stated.min_size,
    )


def test_the_network_is_left_as_it_was():
    network = halved().train()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    measure_info(network, 3)
    assert network.training
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)
