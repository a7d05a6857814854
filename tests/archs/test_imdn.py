from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imdn_kd.archs import CCA, IMDB, IMDN, IMDN_RTE, SRNetwork
from imdn_kd.archs.imdn import map_statistics
from imdn_kd.registry import ARCHS
from tests.official import FILES, official, official_weights
from tests.reference import imdn as reference
from tests.refused import refused
from tests.shared_data import needs_shared

PARAMETERS = {  # published, or counted in the official files
    ("imdn", 2): 694_404,
    ("imdn", 3): 703_059,
    ("imdn", 4): 715_176,
    ("imdn_as", None): 752_104,
    ("imdn_rtc", 2): 20_190,
    ("imdn_rte", None): 89_748,
}


WITHOUT_ATTENTION = {"type": "IMDN", "attention": False}


def build(name: str | dict[str, Any], scale: int | None = None) -> SRNetwork:
    spec = {"type": name} if isinstance(name, str) else name
    return ARCHS.build(spec if scale is None else {**spec, "upscale": scale}).eval()


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("name", "scale"), PARAMETERS)
def test_number_of_parameters(name, scale):
    assert count(build(name, scale)) == PARAMETERS[name, scale]


@needs_shared
@pytest.mark.parametrize("name", FILES)
def test_official_checkpoints_load_strictly_and_give_the_output_of_the_formulas(name):
    weights = official_weights(name)
    network = official(name).network
    network.load_state_dict(weights)
    image = torch.rand((2, 3, 44, 36), generator=torch.Generator().manual_seed(0))
    expected = {
        "IMDN_x2": lambda: reference.imdn(image, weights, 2),
        "IMDN_x3": lambda: reference.imdn(image, weights, 3),
        "IMDN_x4": lambda: reference.imdn(image, weights, 4),
        "IMDN_AS": lambda: reference.imdn_as(image, weights),
        "IMDN_RTC": lambda: reference.imdn_rtc(image, weights, 2),
        "IMDN_RTE": lambda: reference.imdn_rte(image, weights),
    }[name]()
    with torch.no_grad():
        assert (network(image) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", list(ARCHS))
def test_every_network_keeps_its_info_and_its_spec(name):
    network = build(name)
    info = network.info
    side = max(info.min_size, info.size_multiple)
    image = torch.rand(1, info.num_in_ch, side, 3 * side)
    with torch.no_grad():
        result = network(image)
    assert result.shape == (1, info.num_in_ch, info.scale * side, info.scale * 3 * side)
    assert info.receptive_radius % info.size_multiple == 0
    for path in info.global_pool_modules:
        assert isinstance(network.get_submodule(path), CCA)
    again = ARCHS.build(network.spec)
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again.eval()(image), result)


@pytest.mark.parametrize(
    "name", [WITHOUT_ATTENTION, *(name for name in ARCHS if not build(name).info.global_pool_modules)]
)
def test_the_radius_of_networks_without_pooling_is_exact(name):
    network = build(name).double()
    info = network.info
    side = 2 * info.receptive_radius + 8 * info.size_multiple
    # All dependencies must show: no ReLU may be off, no weight zero.
    for parameter in network.parameters():
        torch.nn.init.uniform_(parameter, 0.01, 0.1)
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    centre = side // 2 // info.size_multiple * info.size_multiple
    top = info.scale * centre
    cell = network(image)[..., top : top + info.scale * info.size_multiple, top : top + info.scale * info.size_multiple]
    cell.sum().backward()
    reached = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert centre - int(reached.min()) == info.receptive_radius
    assert int(reached.max()) - (centre + info.size_multiple - 1) <= info.receptive_radius


def test_without_attention_imdn_is_what_it_is_with_one_that_does_nothing():
    network, other = build(WITHOUT_ATTENTION), build("IMDN")
    keys = other.load_state_dict(network.state_dict(), strict=False)
    assert keys.missing_keys and all(".cca." in key for key in keys.missing_keys) and not keys.unexpected_keys
    for block in other.blocks:
        torch.nn.init.zeros_(block.cca.conv_du[2].weight)
        torch.nn.init.constant_(block.cca.conv_du[2].bias, 50)  # a factor of 1
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        assert (network(image) - other(image)).abs().max() <= 1e-6
    assert len(network.segments()) == 1
    assert not network.info.global_pool_modules


@pytest.mark.parametrize("name", [WITHOUT_ATTENTION, *ARCHS])
def test_stages_give_what_forward_gives(name):
    network = build(name)
    side = 8 * network.info.size_multiple
    image = torch.rand(1, 3, side, side + network.info.size_multiple)
    features, statistics = {"image": image}, None
    with torch.no_grad():
        for segment in network.segments():
            assert segment.receptive_radius % network.info.size_multiple == 0
            features |= segment.run({key: features[key] for key in segment.reads}, statistics)
            statistics = map_statistics(features[segment.global_stat]) if segment.global_stat else None
        assert (features["sr"] - network(image)).abs().max() <= 1e-5


def test_statistics_are_those_of_the_population():
    x = np.random.default_rng(0).normal(3, 2, (2, 5, 7, 9)).astype(np.float32)
    mean, std = map_statistics(torch.from_numpy(x))
    np.testing.assert_allclose(mean[..., 0, 0], x.mean((2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std[..., 0, 0], x.std((2, 3)), rtol=1e-5)


def test_flat_patches_give_finite_gradients_and_exact_zeros():
    x = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    statistics = map_statistics(x)
    assert torch.equal(statistics.std, torch.zeros(2, 3, 1, 1))
    (statistics.mean + statistics.std).sum().backward()
    assert torch.isfinite(x.grad).all()

    network = IMDN(num_feat=16, num_block=2, upscale=2).train()
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    network(torch.zeros(2, 3, 1, 1)).sum().backward()  # a single pixel has no spread in any block
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_gradient_of_the_statistics():
    x = torch.rand(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: tuple(map_statistics(t)), x)


@settings(max_examples=15, deadline=None)
@given(
    num_feat=st.integers(4, 24),
    num_block=st.integers(1, 3),
    upscale=st.integers(1, 4),
    channels=st.sampled_from([1, 3, 4]),
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
)
def test_any_width_depth_factor_and_size(num_feat, num_block, upscale, channels, size):
    network = IMDN(num_feat=num_feat, num_block=num_block, upscale=upscale, num_in_ch=channels)
    with torch.no_grad():
        result = network(torch.rand(2, channels, *size))
    assert result.shape == (2, channels, upscale * size[0], upscale * size[1])
    assert torch.isfinite(result).all()


def test_a_block_may_keep_any_share_of_its_channels():
    assert IMDB(100, 57 / 100).kept == 57


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: IMDB(64, 0.0), "network.invalid-option"),
        (lambda: IMDB(64, 1.0), "network.invalid-option"),
        (lambda: IMDN_RTE(distillation_rate=0.5), "network.invalid-option"),
        (lambda: IMDN(upscale=0), "network.invalid-option"),
        (lambda: ARCHS.build({"type": "imdm"}), "registry.unknown-name"),
        (lambda: ARCHS.build({"upscale": 2}), "registry.no-type"),
        (lambda: ARCHS.build({"type": "imdn", "upscal": 2}), "registry.unknown-option"),
    ],
)
def test_impossible_options_are_one_line(make, code):
    with refused(code) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_misspelt_name_gets_a_suggestion():
    with refused("registry.unknown-name") as caught:
        ARCHS.build({"type": "imdm"})
    assert "did you mean 'imdn'" in str(caught.value)
