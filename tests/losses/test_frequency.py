import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.losses.frequency import FrequencyBandLoss, WaveletLoss, haar, twice_details, twice_details_transposed
from imdn_kd.losses.pixel import FFTLoss
from tests.reference import feature_losses as reference
from tests.refused import refused

RNG = np.random.default_rng(0)


def pair(*shape):
    return [RNG.random(shape, dtype=np.float32) for _ in range(2)]


def of(loss, sr, gt):
    return float(loss(torch.from_numpy(sr), torch.from_numpy(gt)))


# Sizes that are multiples of the number of bands put coefficients on the edges.
@pytest.mark.parametrize("size", [(8, 8), (6, 12), (7, 5), (12, 3), (1, 9), (1, 1)])
@pytest.mark.parametrize("bands", [[1], [1, 1, 1], [0, 0.5, 0, 2], [3, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6, 7]])
def test_the_rings_are_those_of_the_fourier_sums(size, bands):
    sr, gt = pair(2, 2, *size)

    assert of(FrequencyBandLoss(bands=bands), sr, gt) == pytest.approx(
        reference.frequency_bands(sr, gt, bands), rel=1e-5
    )


def test_one_band_is_the_whole_spectrum():
    sr, gt = pair(2, 3, 9, 10)

    assert of(FrequencyBandLoss(bands=[1]), sr, gt) == pytest.approx(of(FFTLoss(norm="ortho"), sr, gt), rel=1e-6)


@pytest.mark.parametrize(("cycles", "band"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (11, 2), (12, 3), (16, 3)])
@pytest.mark.parametrize("transposed", [False, True])
def test_a_wave_is_seen_in_its_band_alone(cycles, band, transposed):
    # 32 px hold 16 cycles at most, so bands begin at 0, 4, 8 and 12.
    wave = torch.cos(2 * math.pi * cycles * torch.arange(32) / 32).expand(1, 1, 32, 32)
    wave = wave.mT if transposed else wave
    seen = []
    for k in range(4):
        bands = [0.0] * 4
        bands[k] = 1.0
        seen.append(float(FrequencyBandLoss(bands=bands)(wave, torch.zeros_like(wave))))

    assert np.argmax(seen) == band
    assert sum(seen) == pytest.approx(seen[band], rel=1e-3)


def test_a_checkerboard_is_in_the_last_band():
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(1, 1, 4, 4)

    assert FrequencyBandLoss(bands=[1, 1, 0])(board, torch.zeros_like(board)) < 1e-6
    assert FrequencyBandLoss(bands=[0, 0, 1])(board, torch.zeros_like(board)) > 0.1


@pytest.mark.parametrize("bands", [[], [0, 0], [1, -1], [1, math.nan], [math.inf]])
def test_bands_without_a_use_are_refused(bands):
    with refused("loss.out-of-range"):
        FrequencyBandLoss(bands=bands)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (6, 9), (1, 4), (1, 1)])
@pytest.mark.parametrize(("levels", "low", "high"), [(1, 1, 1), (1, 0, 2), (2, 0.5, 1), (4, 1, 0)])
def test_the_sub_bands_are_those_of_the_blocks(size, levels, low, high):
    sr, gt = pair(2, 2, *size)

    value = of(WaveletLoss(levels=levels, low=low, high=high), sr, gt)

    assert value == pytest.approx(reference.wavelet(sr, gt, levels, low, high), rel=1e-5)


def test_each_pattern_has_its_own_band():
    patterns = torch.tensor([[[1, -1], [1, -1]], [[1, 1], [-1, -1]], [[1, -1], [-1, 1]]]).float() / 2
    for k, pattern in enumerate(patterns):
        low, details = haar(pattern[None, None])

        assert float(low) == 0
        assert details.flatten().tolist() == [float(k == other) for other in range(3)]


@given(height=st.integers(1, 5), width=st.integers(1, 5))
def test_the_wavelet_is_orthonormal(height, width):
    image = torch.rand(2, 3, 2 * height, 2 * width, generator=torch.Generator().manual_seed(0))
    low, details = haar(image)

    torch.testing.assert_close(low.square().sum() + details.square().sum(), image.square().sum(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fast_details_and_their_transpose_are_those_of_the_wavelet(memory_format):
    image = torch.from_numpy(pair(2, 3, 6, 10)[0]).contiguous(memory_format=memory_format).requires_grad_()
    details = haar(image)[1]
    upstream = torch.rand(details.shape, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad(2 * details, image, upstream)
    out = torch.empty_like(image)
    twice_details_transposed(upstream, out=out)

    torch.testing.assert_close(twice_details(image), 2 * details.detach())
    torch.testing.assert_close(out, expected)


def test_a_flat_difference_is_in_the_low_band_and_doubles_with_each_level():
    sr, gt = torch.full((1, 1, 5, 7), 0.75), torch.full((1, 1, 5, 7), 0.5)

    assert float(WaveletLoss(levels=3, high=0)(sr, gt)) == pytest.approx(8 * 0.25)
    assert float(WaveletLoss(levels=3, low=0)(sr, gt)) == 0


@pytest.mark.parametrize("levels", [0, -1, 1.5, math.nan])
def test_levels_that_are_no_number_of_splits_are_refused(levels):
    with refused("loss.out-of-range"):
        WaveletLoss(levels=levels)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (-1, 1), (1, -1), (math.nan, 1), (1, math.inf)])
def test_weights_without_a_use_are_refused(low, high):
    with refused("loss.out-of-range"):
        WaveletLoss(low=low, high=high)
