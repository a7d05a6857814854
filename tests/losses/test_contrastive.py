import math

import numpy as np
import pytest
import torch

from imdn_kd.losses import contrastive as contrast
from imdn_kd.losses.contrastive import ContrastiveLoss
from imdn_kd.losses.frequency import haar
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)

every_space = pytest.mark.parametrize("space", ["pixels", "wavelet"])


def images(count, *shape):
    return [torch.from_numpy(RNG.random(shape, dtype=np.float32)) for _ in range(count)]


@every_space
@pytest.mark.parametrize("eps", [1e-7, 1e-3, 0.5])
@pytest.mark.parametrize("size", [(6, 4), (5, 7), (6, 5), (5, 6), (1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_is_what_its_formula_says(space, eps, size, memory_format):
    three = [image.contiguous(memory_format=memory_format) for image in images(3, 2, 3, *size)]

    value = float(ContrastiveLoss(space=space, eps=eps)(*three))

    assert value == pytest.approx(reference.contrastive(*(t.numpy() for t in three), space, eps), rel=1e-5)


@every_space
@pytest.mark.parametrize("others", [1, 2, 9])
def test_inputs_of_other_samples_are_negatives_too(space, others, monkeypatch):
    three = images(3, 3, 3, 6, 4)
    expected = reference.contrastive(*(each.numpy() for each in three), space, 1e-3, others)
    for numbers_at_a_time in (1, 10**6):
        monkeypatch.setattr(contrast, "_CHUNK", numbers_at_a_time)
        assert float(ContrastiveLoss(space=space, others=others)(*three)) == pytest.approx(expected, rel=1e-5)


@every_space
@pytest.mark.parametrize("size", [(6, 4), (5, 7)])
@pytest.mark.parametrize("numbers_at_a_time", [1, 200, 10**6])
def test_its_gradient_is_that_of_autograd_however_the_batch_is_cut(space, size, numbers_at_a_time, monkeypatch):
    monkeypatch.setattr(contrast, "_CHUNK", numbers_at_a_time)
    student, teacher, negative = images(3, 5, 3, *size)
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(3 * ContrastiveLoss(space=space, eps=1e-3)(student, teacher, negative), student)

    differences = [student - other for other in (teacher, negative)]
    parts = [haar(each)[1] if space == "wavelet" else each for each in differences]
    near, far = (part.abs().flatten(1).mean(1) for part in parts)
    (expected,) = torch.autograd.grad(3 * (near / (far + 1e-3)).mean(), student)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-7)


@every_space
def test_its_gradient_has_the_memory_format_of_the_student(space):
    student, teacher, negative = images(3, 2, 3, 8, 8)
    student = student.contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(ContrastiveLoss(space=space)(student, teacher, negative), student)

    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_half_way_between_teacher_and_negative_it_is_almost_one():
    teacher, negative = images(2, 2, 3, 8, 8)

    assert float(ContrastiveLoss(eps=1e-7)((teacher + negative) / 2, teacher, negative)) == pytest.approx(1, rel=1e-5)


@every_space
def test_a_step_along_its_gradient_leads_to_the_teacher_and_away_from_the_negative(space):
    student, teacher, negative = images(3, 2, 3, 8, 8)
    student.requires_grad_()
    loss = ContrastiveLoss(space=space)
    loss(student, teacher, negative).backward()
    after = (student - 1e-2 * student.grad / student.grad.abs().max()).detach()

    assert loss(after, teacher, negative) < loss(student, teacher, negative)
    near, far = (reference.distance(after.numpy(), other.numpy(), "l1") for other in (teacher, negative))
    assert near < reference.distance(student.detach().numpy(), teacher.numpy(), "l1")
    assert far > reference.distance(student.detach().numpy(), negative.numpy(), "l1")


@every_space
def test_where_the_student_is_the_negative_eps_bounds_it(space):
    teacher, negative = images(2, 2, 3, 6, 6)
    student = negative.clone().requires_grad_()
    value = ContrastiveLoss(space=space, eps=1e-2)(student, teacher, negative)
    value.backward()

    alone = ContrastiveLoss(space=space, eps=1e6)(negative, teacher, negative) * 1e6  # the numerator
    torch.testing.assert_close(value, alone / 1e-2, rtol=1e-5, atol=0)
    assert torch.isfinite(student.grad).all()


@every_space
def test_it_is_nothing_where_all_three_are_equal(space):
    (student,) = images(1, 2, 3, 6, 6)
    student.requires_grad_()
    value = ContrastiveLoss(space=space)(student, student.detach(), student.detach())
    value.backward()

    assert value == 0
    assert torch.isfinite(student.grad).all()


def test_the_details_leave_brightness_alone():
    student, _, negative = images(3, 2, 3, 6, 6)

    assert ContrastiveLoss(space="wavelet")(student, student + 0.25, negative) < 1e-4


def test_only_the_student_has_a_gradient():
    student, teacher, negative = (image.requires_grad_() for image in images(3, 2, 3, 6, 6))
    ContrastiveLoss()(student, teacher, negative).backward()

    assert student.grad is not None
    assert teacher.grad is None
    assert negative.grad is None


def test_an_unknown_space_is_refused():
    with refused("loss.unknown-choice"):
        ContrastiveLoss(space="vgg")


@pytest.mark.parametrize("others", [-1, 1.5, True])
def test_others_that_cannot_be_counted_are_refused(others):
    with refused("loss.out-of-range"):
        ContrastiveLoss(others=others)


@pytest.mark.parametrize("eps", [0, -1e-6, 1e-50, math.inf, math.nan])
def test_an_eps_that_bounds_nothing_is_refused(eps):
    with refused("loss.out-of-range"):
        ContrastiveLoss(eps=eps)
