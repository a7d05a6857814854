import math

import numpy as np
import pytest
import torch

from imdn_kd.losses.attention import AttentionLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)


def features(*shape):
    return RNG.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("p", [1, 2, 2.5, 4])
def test_it_is_what_its_formula_says(form, p):
    student, teacher = features(2, 4, 3, 5), features(2, 7, 3, 5)

    value = float(AttentionLoss(p=p, form=form)(torch.from_numpy(student), torch.from_numpy(teacher)))

    assert value == pytest.approx(reference.attention(student, teacher, p, form), rel=1e-5)


@pytest.mark.parametrize("form", ["paper", "code"])
@pytest.mark.parametrize("p", [1, 2, 4])
def test_gradients_are_those_of_the_formula_where_features_are_negative_too(form, p):
    student, teacher = (torch.from_numpy(features(2, 3, 3, 4)).double() for _ in range(2))

    assert torch.autograd.gradcheck(AttentionLoss(p=p, form=form), (student.requires_grad_(), teacher))


def test_maps_without_a_common_pixel_are_as_far_apart_as_maps_can_be():
    student, teacher = torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2)
    student[0, 0, 0, 0], teacher[0, :, 1, 1] = 3.0, 5.0

    assert float(AttentionLoss()(student, teacher)) == pytest.approx(math.sqrt(2))
    assert float(AttentionLoss(form="code")(student, teacher)) == pytest.approx(0.5)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_how_large_the_features_are_does_not_matter(factor):
    student, teacher = (torch.from_numpy(features(2, 4, 6, 6)) for _ in range(2))
    loss = AttentionLoss()

    torch.testing.assert_close(loss(factor * student, teacher), loss(student, teacher), rtol=1e-5, atol=0)


@pytest.mark.parametrize("p", [1, 1.5, 2])
def test_a_student_of_zeros_is_at_a_distance_of_one_with_a_finite_gradient(p):
    student = torch.zeros(2, 4, 6, 6, requires_grad=True)
    value = AttentionLoss(p=p)(student, torch.from_numpy(features(2, 4, 6, 6)))
    value.backward()

    assert value.item() == pytest.approx(1)
    assert torch.isfinite(student.grad).all()


def test_equal_maps_give_nothing_and_a_gradient_of_zero():
    student = torch.from_numpy(features(2, 4, 6, 6)).requires_grad_()
    value = AttentionLoss()(student, student.detach().clone())
    value.backward()

    assert value.item() == 0
    assert not student.grad.any()


def test_two_maps_of_zeros_are_equal():
    assert AttentionLoss()(torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 3, 3)) == 0


@pytest.mark.parametrize("p", [0, 0.5, -1, math.inf, math.nan])
def test_a_power_below_one_is_refused(p):
    with refused("loss.out-of-range"):
        AttentionLoss(p=p)


def test_an_unknown_form_is_refused():
    with refused("loss.unknown-choice"):
        AttentionLoss(form="papre")
