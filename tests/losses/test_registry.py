"""What every loss promises; a new one is tested as soon as it is registered."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.errors import InputError
from imdn_kd.registry import LOSSES

SHAPE = (4, 3, 12, 10)

every_loss = pytest.mark.parametrize("name", list(LOSSES))


def build(name):
    return LOSSES.build({"type": name})


def images(seed, shape=SHAPE, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_registry_holds_the_losses_of_option_files():
    assert {"L1Loss", "MSELoss", "CharbonnierLoss", "FFTLoss"} <= set(LOSSES)


@every_loss
def test_it_is_a_positive_scalar_and_almost_nothing_for_equal_images(name):
    loss = build(name)
    value = loss(images(0), images(1))

    assert value.shape == ()
    assert value > 0.01
    assert 0 <= loss(images(0), images(0)) <= 1.001e-6  # Charbonnier: sqrt(eps)


@every_loss
def test_the_gradient_reaches_every_plane_of_the_result(name):
    sr = images(0).requires_grad_()
    build(name)(sr, images(1)).backward()

    assert torch.isfinite(sr.grad).all()
    assert (sr.grad.abs().amax((2, 3)) > 0).all()


@every_loss
def test_it_does_not_depend_on_the_size_of_the_batch(name):
    loss, sr, gt = build(name), images(0), images(1)
    halves = (loss(sr[:2], gt[:2]) + loss(sr[2:], gt[2:])) / 2

    torch.testing.assert_close(loss(sr, gt), halves, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss(sr.repeat(2, 1, 1, 1), gt.repeat(2, 1, 1, 1)), loss(sr, gt), rtol=1e-5, atol=0)


@every_loss
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_flat_and_equal_images_give_finite_values_and_gradients(name, level, offset):
    sr = torch.full(SHAPE, level + offset, requires_grad=True)
    value = build(name)(sr, torch.full(SHAPE, level))
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(sr.grad).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_are_compared_in_full_precision(name, dtype):
    loss, gt = build(name), images(1)
    sr = images(0).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(sr, gt)
    value.backward()

    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(sr.detach().float(), gt), rtol=1e-6, atol=0)
    assert torch.isfinite(sr.grad).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_half_precision_images_give_finite_gradients(name, dtype):
    sr = images(0).to(dtype).requires_grad_()
    value = build(name)(sr, sr.detach().clone())
    value.backward()

    assert torch.isfinite(value)
    assert torch.isfinite(sr.grad).all()


@every_loss
def test_its_gradient_is_that_of_its_formula(name):
    shape = (2, 3, 5, 4)
    sr, gt = images(0, shape, torch.float64).requires_grad_(), images(1, shape, torch.float64)

    assert torch.autograd.gradcheck(build(name), (sr, gt))


@every_loss
@given(shape=st.tuples(*[st.integers(1, 9)] * 4))
def test_images_of_any_size(name, shape):
    assert torch.isfinite(build(name)(images(0, shape), images(1, shape)))


@every_loss
@pytest.mark.parametrize("shape", [(4, 3, 12, 9), (1, 3, 12, 10), (4, 1, 12, 10), (3, 12, 10)])
def test_shapes_that_differ_are_refused(name, shape):
    with pytest.raises(InputError, match=r"\(4, 3, 12, 10\)") as caught:
        build(name)(images(0), images(1, shape))
    assert "\n" not in str(caught.value)


@every_loss
def test_options_are_keywords(name):
    with pytest.raises(TypeError):
        LOSSES.get(name)(1.0)
    with pytest.raises(InputError, match="no option 'loss_wieght'"):
        LOSSES.build({"type": name, "loss_wieght": 1.0})
