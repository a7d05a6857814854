import math

import numpy as np
import pytest
import torch

from imdn_kd.losses.distribution import ChannelDistributionLoss, MmdLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)


def features(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("temperature", [0.5, 1, 4])
def test_distributions_of_channels_are_what_the_formula_says(temperature):
    student, teacher = features(2, 4, 3, 5), features(2, 4, 3, 5)
    value = float(ChannelDistributionLoss(temperature=temperature)(*map(torch.from_numpy, (student, teacher))))
    assert value == pytest.approx(reference.channel_distributions(student, teacher, temperature), rel=1e-5)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf"])
def test_discrepancies_are_what_the_formula_says(kernel):
    student, teacher = features(2, 4, 3, 5), features(2, 7, 3, 5)
    value = float(MmdLoss(kernel=kernel)(*map(torch.from_numpy, (student, teacher))))
    assert value == pytest.approx(reference.mmd(student, teacher, kernel), rel=1e-5)


@pytest.mark.parametrize(
    "loss", [ChannelDistributionLoss(), MmdLoss(kernel="linear"), MmdLoss()], ids=["distribution", "linear", "poly"]
)
def test_gradients_are_those_of_the_formula(loss):
    student, teacher = (torch.from_numpy(features(2, 3, 3, 4)).double() for _ in range(2))
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), teacher))


def test_a_constant_added_to_a_channel_changes_no_distribution():
    student, teacher = (torch.from_numpy(features(2, 4, 6, 6)) for _ in range(2))
    shift = torch.from_numpy(features(2, 4, 1, 1))
    loss = ChannelDistributionLoss()
    torch.testing.assert_close(loss(student + shift, teacher), loss(student, teacher), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf"])
def test_channels_in_another_order_have_the_same_distribution(kernel):
    maps = torch.from_numpy(features(2, 5, 6, 6))
    assert float(MmdLoss(kernel=kernel)(maps.flip(1), maps)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kernel", ["linear", "poly", "rbf"])
def test_maps_of_zeros_give_finite_gradients(kernel):
    student = torch.zeros(1, 3, 4, 4, requires_grad=True)
    MmdLoss(kernel=kernel)(student, torch.zeros(1, 2, 4, 4)).backward()
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_that_is_not_above_0_is_refused(temperature):
    with refused("loss.out-of-range"):
        ChannelDistributionLoss(temperature=temperature)


def test_an_unknown_kernel_is_refused():
    with refused("loss.unknown-choice"):
        MmdLoss(kernel="cubic")
