from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imdn_kd import Upscaler, zoo
from imdn_kd.archs import Plain
from imdn_kd.archs.receptive_field import measure_dependence
from imdn_kd.inference.cropping import AdaptiveCropping
from imdn_kd.inference.model_file import load_model
from imdn_kd.registry import ARCHS
from tests.reference.plain import cells, pixels
from tests.reference.plain import plain as reference
from tests.refused import refused

VARIANTS = ("plain_t", "plain_s", "plain_m", "plain_l")

ETDS = {  # thousands of parameters of the network of its size in Chao et al., CVPR 2023, x2 / x3 / x4
    "plain_t": (13.9, 16.9, 21.4),
    "plain_s": (41.5, 46.8, 54.1),
    "plain_m": (60.0, 65.3, 72.6),
    "plain_l": (152, 160, 170),
}

SHIPPED = [student for student in zoo.students() if student.name.startswith("plain")]


def random_network(**options) -> Plain:
    torch.manual_seed(0)
    network = Plain(**{"num_feat": 6, "num_block": 2, **options}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.mark.parametrize("name", VARIANTS)
def test_has_no_more_parameters_than_the_published_network_of_its_size(name):
    for scale, limit in zip((2, 3, 4), ETDS[name], strict=True):
        count = sum(each.numel() for each in ARCHS.build({"type": name, "upscale": scale}).parameters())
        assert 0.9 * limit < count / 1000 + 2.6 and count / 1000 <= limit


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize(("scale", "channels"), [(1, 3), (2, 3), (3, 1), (4, 3)])
def test_is_the_slow_reference(scale, channels, separable):
    network = random_network(upscale=scale, num_in_ch=channels, separable=separable)
    image = torch.rand((1, channels, 5, 7), generator=torch.Generator().manual_seed(1))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    with torch.no_grad():
        found = network(image)[0].numpy()
    assert abs(found - reference(image[0].numpy(), weights, scale)).max() <= 1e-5


@pytest.mark.parametrize(("side", "channels"), [(2, 3), (3, 1)])
def test_cells_of_pixels_are_channels_of_the_slow_reference(side, channels):
    network = random_network(upscale=1, num_in_ch=channels, unshuffle=side)
    image = torch.rand((1, channels, 4 * side, 5 * side), generator=torch.Generator().manual_seed(1))
    weights = {key: value.numpy() for key, value in network.state_dict().items()}
    with torch.no_grad():
        found = network(image)[0].numpy()
    assert abs(found - pixels(reference(cells(image[0].numpy(), side), weights, 1), side)).max() <= 1e-5


@pytest.mark.parametrize("crop_size", [6, 13])
def test_crops_of_cells_are_the_whole_image(crop_size):
    network = random_network(upscale=1, unshuffle=2)
    image = torch.rand((1, 3, 61, 34), generator=torch.Generator().manual_seed(3))
    whole, crops = (
        AdaptiveCropping(network, mode=mode, crop_size=size)(image)
        for mode, size in (("whole", None), ("exact", crop_size))
    )
    assert whole.shape == image.shape
    assert (crops - whole).abs().max() <= 1e-5


@settings(deadline=None, max_examples=30)
@given(
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    value=st.floats(0, 1, width=32),
    scale=st.integers(1, 4),
    separable=st.booleans(),
)
def test_a_flat_picture_of_any_size_stays_flat_whatever_the_weights(height, width, value, scale, separable):
    network = random_network(upscale=scale, separable=separable)
    with torch.no_grad():
        result = network(torch.full((1, 3, height, width), value))
    assert result.shape == (1, 3, scale * height, scale * width)
    assert (result - value).abs().max() <= 1e-4


@settings(deadline=None, max_examples=20)
@given(shift=st.floats(-0.5, 0.5, width=32), factor=st.floats(0.125, 2, width=32))
def test_brightness_and_contrast_pass_through(shift, factor):
    """Without biases, and with a head that sees differences alone, the result follows both."""
    network = random_network()
    image = torch.rand((1, 3, 9, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = factor * network(image) + shift
        assert (network(factor * image + shift) - expected).abs().max() <= 1e-4


def test_separable_convolutions_see_as_far_with_fewer_weights():
    network, whole = random_network(separable=True), random_network()
    assert measure_dependence(network, network.info) == measure_dependence(whole, whole.info)
    assert network.info == whole.info
    sizes = [sum(each.numel() for each in one.body.parameters()) for one in (network, whole)]
    assert sizes == [2 * (6 * 9 + 6 * 6), 2 * 6 * 6 * 9]


def test_students_of_the_family_ship():
    assert {student.scale for student in SHIPPED} >= {2, 4}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("student", SHIPPED, ids=lambda student: student.name)
def test_flat_pictures_through_every_student_that_ships(student, value, precision):
    upscaler = Upscaler(student.name, device="cpu", precision=precision)
    for size in ((1, 1), (3, 2), (40, 33)):
        flat = torch.full((*size, 3), value, dtype=torch.uint8).numpy()
        assert abs(upscaler(flat).astype(int) - value).max() <= 2


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_begins_near_the_repeated_input(scale, separable):
    torch.manual_seed(0)
    image = torch.rand(2, 3, 12, 12)
    with torch.no_grad():
        result = Plain(upscale=scale, separable=separable)(image)
    repeated = image.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    assert (result - repeated).abs().mean() < 0.1


@pytest.mark.parametrize(
    "options",
    [
        {"upscale": 3},
        {"separable": True},
        {"upscale": 1},
        {"upscale": 1, "unshuffle": 2},
        {"upscale": 1, "unshuffle": 2, "num_in_ch": 1},
    ],
)
def test_its_weights_alone_say_what_network_they_are_of(tmp_path, options):
    network = random_network(**options)
    torch.save({"params": network.state_dict()}, tmp_path / "net_g_10.pth")
    found = load_model(tmp_path / "net_g_10.pth").network
    assert found.spec == network.spec
    image = torch.rand(1, network.num_in_ch, 6, 6)
    with torch.no_grad():
        assert torch.equal(found(image), network(image))


@pytest.mark.parametrize(
    "options",
    [{"upscale": 0}, {"num_block": 0}, {"num_feat": 0}, {"upscale": 1, "unshuffle": 0}, {"upscale": 2, "unshuffle": 2}],
)
def test_what_cannot_be_built_is_one_line(options):
    with refused("network.invalid-option"):
        Plain(**options)
