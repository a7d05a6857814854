import numpy as np
import pytest
import torch

from imdn_kd.losses.flow import FlowLoss, flow_matrix
from imdn_kd.losses.variational import VariationalAdapter, VariationalLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)

both = pytest.mark.parametrize("distribution", ["gaussian", "laplace"])


def features(*shape):
    return torch.from_numpy(RNG.standard_normal(shape, dtype=np.float32))


def layers():
    return features(2, 3, 4, 5), features(2, 2, 4, 5)


def numpy(tensors):
    return tuple(each.numpy() for each in tensors)


def test_the_flow_loss_is_what_its_formula_says():
    student, teacher = layers(), layers()
    assert float(FlowLoss()(student, teacher)) == pytest.approx(
        reference.flow(numpy(student), numpy(teacher)), rel=1e-5
    )


def test_its_gradient_is_that_of_the_formula_for_both_layers_of_the_student():
    student, teacher = ([each.double() for each in layers()] for _ in range(2))
    for each in (*student, *teacher):
        each.requires_grad_()
    assert torch.autograd.gradcheck(lambda *two: FlowLoss()(two, tuple(teacher)), tuple(student))
    assert all(each.grad is None for each in teacher)


def test_the_flow_does_not_depend_on_where_things_are_in_the_image():
    first, second = layers()
    torch.testing.assert_close(flow_matrix(first.flip(3), second.flip(3)), flow_matrix(first, second))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_flow_is_computed_in_full_precision_under_autocast(dtype):
    student = [each.to(dtype).requires_grad_() for each in layers()]
    teacher = layers()
    exact = FlowLoss()(tuple(each.float() for each in student), teacher)
    expected = torch.autograd.grad(exact, student)
    with torch.autocast("cpu", torch.bfloat16):
        value = FlowLoss()(tuple(student), teacher)
        assert value.dtype == torch.float32
        assert torch.equal(value, exact)
        torch.testing.assert_close(torch.autograd.grad(value, student), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shapes", [((2, 3, 4, 5), (2, 2, 4, 4)), ((2, 3, 4, 5), (1, 2, 4, 5)), ((3, 4, 5), (2, 4, 5))])
def test_layers_that_do_not_fit_are_refused(shapes):
    wrong = tuple(features(*shape) for shape in shapes)
    for student, teacher in ((wrong, layers()), (layers(), wrong), (wrong, wrong)):
        with refused("loss.shapes-differ"):
            FlowLoss()(student, teacher)


@both
def test_the_likelihood_is_what_the_formula_says(distribution):
    location, teacher = features(2, 3, 4, 5), features(2, 3, 4, 5)
    loss = VariationalLoss(distribution=distribution)
    for shape in ((1, 3, 1, 1), (2, 3, 4, 5)):
        spread = features(*shape).abs() + 0.1
        expected = reference.likelihood(*numpy((location, spread, teacher)), distribution)
        assert float(loss(location, spread, teacher)) == pytest.approx(expected, rel=1e-5)


@both
def test_gradients_of_the_likelihood_are_those_of_the_formula(distribution):
    location, teacher = (features(2, 3, 4, 5).double().requires_grad_() for _ in range(2))
    spread = (features(1, 3, 1, 1).double().abs() + 0.1).requires_grad_()
    loss = VariationalLoss(distribution=distribution)
    assert torch.autograd.gradcheck(lambda m, s: loss(m, s, teacher), (location, spread))
    loss(location, spread, teacher).backward()
    assert teacher.grad is None


@both
def test_an_adapter_begins_with_the_variance_that_is_asked_for_and_learns_that_of_the_features(distribution):
    torch.manual_seed(0)
    adapter = VariationalAdapter((2, 3), distribution=distribution, init_variance=2.0)
    student, teacher = features(4, 2, 8, 8), 0.1 * features(4, 3, 8, 8)
    spread = adapter(student)[1].expand(4, 3, 8, 8)
    variance = spread if distribution == "gaussian" else 2 * spread**2
    torch.testing.assert_close(variance, torch.full_like(variance, 2.0))

    optimizer = torch.optim.Adam(adapter.parameters(), 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        location, spread = adapter(student)
        VariationalLoss(distribution=distribution)(location, spread, teacher).backward()
        optimizer.step()
    mean = spread.expand(4, 3, 8, 8).mean((0, 2, 3))
    residual = teacher - location
    best = residual.square() if distribution == "gaussian" else residual.abs()
    torch.testing.assert_close(mean, best.mean((0, 2, 3)), rtol=0.3, atol=0)


def test_an_unknown_distribution_is_refused():
    with refused("loss.unknown-choice"):
        VariationalLoss(distribution="cauchy")
