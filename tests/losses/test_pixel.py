import math

import numpy as np
import pytest
import torch

from imdn_kd.losses import CharbonnierLoss, FFTLoss, L1Loss, MSELoss
from tests.basicsr_compat import import_basicsr
from tests.reference import losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)


def pair(*shape):
    return [RNG.random(shape, dtype=np.float32) for _ in range(2)]


def of(loss, sr, gt):
    return float(loss(torch.from_numpy(sr), torch.from_numpy(gt)))


@pytest.mark.parametrize("shape", [(2, 3, 6, 7), (1, 1, 1, 1)])
def test_they_are_what_their_formulas_say(shape):
    sr, gt = pair(*shape)

    assert of(L1Loss(), sr, gt) == pytest.approx(reference.l1(sr, gt), rel=1e-6)
    assert of(MSELoss(), sr, gt) == pytest.approx(reference.mse(sr, gt), rel=1e-6)
    for eps in (1e-12, 1e-6, 1e-3):
        expected = reference.charbonnier(sr, gt, eps)
        assert of(CharbonnierLoss(eps=eps), sr, gt) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
@pytest.mark.parametrize("size", [(4, 6), (5, 7), (3, 4), (1, 1)])
def test_the_spectra_are_those_of_the_fourier_sums(norm, size):
    sr, gt = pair(2, 2, *size)

    assert of(FFTLoss(norm=norm), sr, gt) == pytest.approx(reference.fft(sr, gt, norm), rel=1e-6)


def test_the_spectrum_of_a_flat_difference_is_one_number():
    # Only the sum over the pixels differs: 8 * 8 * 0.25, one part of the 8 * 5 * 2 of the half spectrum.
    sr, gt = torch.full((1, 1, 8, 8), 0.75), torch.full((1, 1, 8, 8), 0.5)

    assert float(FFTLoss()(sr, gt)) == pytest.approx(16 / 80)


@pytest.mark.parametrize("loss", [L1Loss(), MSELoss(), CharbonnierLoss(), CharbonnierLoss(eps=1e-4)])
def test_values_and_gradients_are_those_of_basicsr(loss):
    options = {"eps": loss.eps} if isinstance(loss, CharbonnierLoss) else {}
    theirs = getattr(import_basicsr("basicsr.losses.basic_loss"), type(loss).__name__)(**options)
    sr, gt = (torch.from_numpy(image) for image in pair(3, 3, 9, 8))
    results = []
    for each in (loss, theirs):
        leaf = sr.clone().requires_grad_()
        value = each(leaf, gt)
        value.backward()
        results.append((value.detach(), leaf.grad))

    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-9)


def test_charbonnier_of_equal_images_is_the_root_of_eps():
    sr, _ = pair(1, 3, 4, 4)

    assert of(CharbonnierLoss(eps=1e-6), sr, sr) == pytest.approx(1e-3, rel=1e-6)


@pytest.mark.parametrize("eps", [0, -1e-6, 1e-50, math.inf, math.nan])
def test_an_eps_without_a_finite_gradient_is_refused(eps):
    with refused("loss.out-of-range"):
        CharbonnierLoss(eps=eps)


def test_an_unknown_norm_is_refused():
    with refused("loss.unknown-choice"):
        FFTLoss(norm="orto")
