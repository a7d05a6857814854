import math

import numpy as np
import pytest
import torch

from imdn_kd.losses.statistics import StatisticsLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)

STATISTICS = [
    ("mean", 2),
    ("power", 1),
    ("power", 2),
    ("power", 3),
    ("mean_power", 1),
    ("mean_power", 2),
    ("mean_power", 3),
    ("absolute_power", 1),
    ("absolute_power", 1.5),
    ("absolute_power", 4),
    ("max", 2),
    ("min", 2),
    ("std", 2),
]

every_statistic = pytest.mark.parametrize(("statistic", "p"), STATISTICS)


def features(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@every_statistic
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_over_the_channels_it_is_what_its_formula_says(statistic, p, distance):
    student, teacher = features(2, 4, 3, 5), features(2, 7, 3, 5)
    loss = StatisticsLoss(statistic=statistic, p=p, distance=distance)

    value = float(loss(torch.from_numpy(student), torch.from_numpy(teacher)))

    expected = reference.statistics(student, teacher, statistic, p, "channels", distance)
    assert value == pytest.approx(expected, rel=1e-5)


@every_statistic
@pytest.mark.parametrize("distance", ["l1", "l2"])
def test_over_space_it_is_what_its_formula_says(statistic, p, distance):
    student, teacher = features(2, 4, 3, 5), features(2, 4, 3, 5)
    loss = StatisticsLoss(statistic=statistic, p=p, over="space", distance=distance)

    value = float(loss(torch.from_numpy(student), torch.from_numpy(teacher)))

    assert value == pytest.approx(reference.statistics(student, teacher, statistic, p, "space", distance), rel=1e-5)


@every_statistic
@pytest.mark.parametrize("over", ["channels", "space"])
def test_gradients_are_those_of_the_formula_where_features_are_negative_too(statistic, p, over):
    student, teacher = (torch.from_numpy(features(2, 3, 3, 4)).double() for _ in range(2))

    loss = StatisticsLoss(statistic=statistic, p=p, over=over)

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), teacher), fast_mode=True)


@every_statistic
@pytest.mark.parametrize("over", ["channels", "space"])
@pytest.mark.parametrize("level", [0.0, -0.75])
def test_flat_features_have_finite_gradients(statistic, p, over, level):
    student = torch.full((2, 3, 4, 4), level, requires_grad=True)
    StatisticsLoss(statistic=statistic, p=p, over=over)(student, torch.from_numpy(features(2, 3, 4, 4))).backward()

    assert torch.isfinite(student.grad).all()


def test_the_standard_deviation_of_nearly_flat_features_is_exact_and_their_gradient_bounded():
    student = torch.tensor([[[[1e-9]], [[-1e-9]]]], requires_grad=True)
    value = StatisticsLoss(statistic="std", distance="l1")(student, torch.zeros(1, 1, 1, 1))
    value.backward()

    assert value.item() == pytest.approx(1e-9, rel=1e-5)
    torch.testing.assert_close(student.grad.flatten(), torch.tensor([0.5, -0.5]))


def test_the_largest_channel_alone_gets_the_gradient_of_the_maximum():
    student = torch.from_numpy(features(1, 3, 4, 4)).requires_grad_()
    StatisticsLoss(statistic="max")(student, torch.zeros(1, 5, 4, 4)).backward()

    reached = student.grad != 0
    assert (reached.sum(1) == 1).all()
    assert torch.equal(reached.float().argmax(1), student.argmax(1))


def test_over_space_the_widths_must_be_the_same():
    with refused("loss.shapes-differ"):
        StatisticsLoss(over="space")(torch.zeros(1, 3, 4, 4), torch.zeros(1, 5, 4, 4))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"statistic": "median"}, "loss.unknown-choice"),
        ({"over": "pixels"}, "loss.unknown-choice"),
        ({"distance": "L2"}, "loss.unknown-choice"),
        ({"statistic": "power", "p": 1.5}, "loss.out-of-range"),
        ({"statistic": "power", "p": 0}, "loss.out-of-range"),
        ({"statistic": "power", "p": math.inf}, "loss.out-of-range"),
        ({"statistic": "absolute_power", "p": 0.5}, "loss.out-of-range"),
        ({"statistic": "absolute_power", "p": math.nan}, "loss.out-of-range"),
        ({"p": 3}, "loss.option-without-effect"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, code):
    with refused(code):
        StatisticsLoss(**options)
