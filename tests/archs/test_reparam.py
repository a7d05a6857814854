from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imdn_kd.archs.reparam import can_expand, collapse, collapsed_weights, expand
from imdn_kd.registry import ARCHS

NAMES = [name for name in ARCHS if can_expand(ARCHS.build({"type": name}))]


def image_for(network: nn.Module) -> torch.Tensor:
    side = 4 * network.info.size_multiple
    return torch.rand((1, network.info.num_in_ch, side, side), generator=torch.Generator().manual_seed(0))


def trained(network: nn.Module) -> nn.Module:
    """The network with its training form a few steps away from where it began."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return network


def test_there_are_networks_to_expand():
    assert {"IMDN", "IMDN_RTC", "Plain", "plain_m"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("edge_operators", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_expanding_changes_no_result_and_collapsing_none_of_the_trained(name, edge_operators):
    torch.manual_seed(0)
    plain = ARCHS.build({"type": name}).eval()
    image = image_for(plain)
    network = expand(copy.deepcopy(plain), width=2, edge_operators=edge_operators, seed=3)
    with torch.no_grad():
        before = plain(image)
        assert (network(image) - before).abs().max() <= 1e-5
        after = trained(network)(image)
        assert (after - before).abs().max() > 1e-3
        # A plain checkout of the network takes the weights, strictly.
        again = ARCHS.build(plain.spec).eval()
        again.load_state_dict(collapsed_weights(network))
        assert (again(image) - after).abs().max() <= 1e-5
        assert (collapse(network)(image) - after).abs().max() <= 1e-5
    assert network.state_dict().keys() == plain.state_dict().keys()
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])


@pytest.mark.parametrize("copied", [copy.deepcopy, AveragedModel])
def test_collapsing_a_copy_leaves_the_original_alone(copied):
    network = expand(ARCHS.build({"type": "plain_t"}), width=2)
    image = image_for(network)
    with torch.no_grad():
        before = network(image)
        assert (collapse(copied(network))(image) - before).abs().max() <= 1e-5
        assert torch.equal(network(image), before)
        assert (collapse(network)(image) - before).abs().max() <= 1e-5


def test_expanding_twice_is_expanding_once():
    network = expand(ARCHS.build({"type": "plain_t"}), width=2)
    keys = list(network.state_dict())
    assert not can_expand(network)
    assert list(expand(network, width=2).state_dict()) == keys


def test_all_of_the_training_form_learns():
    network = expand(ARCHS.build({"type": "plain_t"}), width=2, edge_operators=True)
    network(torch.rand(2, 3, 8, 8)).square().mean().backward()
    names = {name.rsplit(".", 1)[-1] for name, each in network.named_parameters() if each.grad.abs().sum() > 0}
    assert names == {"original", "expand", "project", "mix", "scale"}
    assert all(each.grad is not None for each in network.parameters())


def test_edge_operators_are_those_of_scikit_image():
    from scipy.ndimage import correlate
    from skimage.filters import sobel_h, sobel_v

    conv = expand(nn.Conv2d(1, 1, 3, padding=1, bias=False), edge_operators=True)
    block = conv.parametrizations["weight"][0]
    filters = [each.edge_filter for each in block.edge_operators]
    image = torch.rand(9, 11, dtype=torch.float64).numpy()
    ours = [correlate(image, each.double().numpy(), mode="reflect") for each in filters]

    # Its operators are scaled by a quarter; the last one is compared on a paraboloid, whose Laplacian is 4.
    assert abs(ours[0]) == pytest.approx(abs(4 * sobel_v(image)), abs=1e-12)
    assert abs(ours[1]) == pytest.approx(abs(4 * sobel_h(image)), abs=1e-12)
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    laplacian = correlate((x**2 + y**2).numpy(), filters[2].numpy())
    assert laplacian[1:-1, 1:-1] == pytest.approx(4)


def test_edge_operators_are_a_1x1_convolution_and_a_filter_of_each_channel():
    conv = trained(expand(nn.Conv2d(5, 7, 3, padding=1, bias=False), edge_operators=True))
    block = conv.parametrizations["weight"][0]
    plain = conv.parametrizations["weight"].original + (block.project @ block.expand).view(7, 5, 3, 3)
    x = torch.rand(2, 5, 9, 8)
    total = nn.functional.conv2d(x, plain, padding=1)
    for operator in block.edge_operators:
        mixed = nn.functional.conv2d(x, operator.mix[:, :, None, None])
        filters = operator.edge_filter.expand(7, 1, 3, 3) * operator.scale[:, None, None, None]
        total = total + nn.functional.conv2d(mixed, filters, padding=1, groups=7)
    assert (conv(x) - total).abs().max() <= 1e-5


def test_the_seed_decides():
    first, same, other = (expand(ARCHS.build({"type": "plain_t"}), seed=seed) for seed in (1, 1, 2))
    weights = [each.state_dict()["tail.parametrizations.weight.0.expand"] for each in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_hooks_and_paths_stay():
    network = ARCHS.build({"type": "plain_t"})
    seen = []
    network.tail.register_forward_hook(lambda module, given, result: seen.append(tuple(result.shape)))
    expand(network)(torch.rand(1, 3, 8, 8))
    assert seen == [(1, 48, 8, 8)]
    assert isinstance(network.tail, nn.Conv2d)


def test_only_3x3_convolutions_without_groups_are_expanded():
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Linear(3, 3))
    assert not can_expand(network)
    keys = list(network.state_dict())
    assert list(expand(network).state_dict()) == keys
    assert list(collapse(network).state_dict()) == keys


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_strides_and_biases_are_kept(stride, bias):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, stride, padding=1, bias=bias)
    x = torch.rand(2, 5, 9, 8)
    network = expand(copy.deepcopy(plain))
    assert (network(x) - plain(x)).abs().max() <= 1e-6
    assert collapsed_weights(network).keys() == plain.state_dict().keys()


def test_autocast_does_not_round_the_kernel_twice():
    network = expand(nn.Sequential(nn.Conv2d(8, 8, 3)))
    with torch.autocast("cpu", torch.bfloat16):
        assert network[0].weight.dtype == torch.float32
