import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from imdn_kd.data.augment import INVERSION, TRANSPOSE
from imdn_kd.distill.upcycling import Augmentation, draw_augmentation, zoom_in, zoom_out
from tests.reference.resize import imresize
from tests.refused import refused

ALL = Augmentation(torch.arange(16))


def noise(*shape, dtype=torch.float32):
    """Whole multiples of 1 / 256, which are inverted without rounding."""
    return torch.randint(0, 257, shape, generator=torch.Generator().manual_seed(0)).to(dtype) / 256


def enlarge(images, scale=3):
    return images.repeat_interleave(scale, 2).repeat_interleave(scale, 3)


def test_every_augmentation_is_undone_exactly():
    images = noise(16, 3, 7, 7)

    assert torch.equal(ALL.undo(ALL.apply(images)), images)


def test_every_augmentation_is_undone_exactly_on_the_enlarged_images():
    images = noise(16, 3, 7, 7)

    assert torch.equal(ALL.undo(enlarge(ALL.apply(images))), enlarge(images))


def test_the_sixteen_augmentations_are_all_different():
    image = noise(1, 1, 4, 4).expand(16, 1, 4, 4)

    assert len({tuple(one.flatten().tolist()) for one in ALL.apply(image)}) == 16
    assert torch.equal(ALL.apply(image)[0], image[0])


def test_images_of_eight_bits_come_back_within_rounding():
    images = torch.arange(256, dtype=torch.float32).reshape(1, 1, 16, 16) / 255
    negative = Augmentation(torch.tensor([INVERSION]))
    back = negative.undo(negative.apply(images))

    assert (back - images).abs().max() <= 2**-25


def test_what_a_network_says_in_half_precision_is_undone_in_full():
    # 1 - 0.99609375 is 2^-8 and exact, but bfloat16 has no 1 - 2^-10.
    negative = Augmentation(torch.tensor([INVERSION]))
    back = negative.undo(torch.full((1, 1, 2, 2), 2**-10, dtype=torch.bfloat16))

    assert torch.equal(back, torch.full((1, 1, 2, 2), 1 - 2**-10))


def test_the_gradient_passes_through_a_network_between():
    # A network that only halves commutes with all but the negative, which makes 1 - (1 - x) / 2 of it.
    images, weights = noise(16, 3, 5, 5).requires_grad_(), noise(16, 3, 15, 15)
    result = ALL.undo(enlarge(ALL.apply(images) / 2))
    (result * weights).sum().backward()

    expected = torch.cat((images[:8] / 2, 1 - (1 - images[8:]) / 2))
    assert torch.equal(result, enlarge(expected))
    torch.testing.assert_close(images.grad, functional.avg_pool2d(weights, 3) * 4.5)


def test_all_sixteen_are_drawn_about_equally_often_and_with_the_global_seed():
    torch.manual_seed(0)
    transform_codes = draw_augmentation(1600).transform_codes
    torch.manual_seed(0)

    assert torch.equal(draw_augmentation(1600).transform_codes, transform_codes)
    counts = transform_codes.bincount()
    assert len(counts) == 16
    assert counts.min() > 60
    assert counts.max() < 150


@pytest.mark.parametrize("change", ["apply", "undo"])
def test_images_that_cannot_be_transposed_are_refused(change):
    augmentation = Augmentation(torch.tensor([0, TRANSPOSE]))
    with refused("augment.mismatch"):
        getattr(augmentation, change)(noise(2, 3, 4, 5))


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5), st.integers(0, 5))
def test_zooming_in_cuts_a_part_out_of_each_original(count, height, width, more_rows, more_columns):
    # Every value tells its sample and place.
    shape = (count, 2, height + more_rows, width + more_columns)
    gt = torch.arange(count * 2 * shape[2] * shape[3]).reshape(shape)
    parts = zoom_in(gt, (height, width))

    assert parts.shape == (count, 2, height, width)
    for sample, part in enumerate(parts):
        first = int(part[0, 0, 0]) - sample * 2 * shape[2] * shape[3]
        top, left = divmod(first, shape[3])
        assert torch.equal(part, gt[sample, :, top : top + height, left : left + width])


def test_zooming_in_reaches_every_place_and_each_sample_has_its_own():
    gt = torch.arange(9).reshape(1, 1, 3, 3).expand(900, 1, 3, 3)
    torch.manual_seed(0)
    corners = zoom_in(gt, (2, 2))[:, 0, 0, 0]
    torch.manual_seed(0)
    again = zoom_in(gt, (2, 2))[:, 0, 0, 0]

    assert torch.equal(corners, again)
    counts = corners.bincount(minlength=9)[[0, 1, 3, 4]]
    assert counts.sum() == 900
    assert counts.min() > 180


def test_zooming_in_leaves_the_original_alone():
    gt = noise(1, 1, 4, 4)
    zoom_in(gt, (4, 4)).zero_()

    assert torch.equal(gt, noise(1, 1, 4, 4))


@pytest.mark.parametrize("size", [(5, 4), (4, 5)])
def test_parts_larger_than_the_original_are_refused(size):
    with refused("distill.patches-too-small"):
        zoom_in(noise(1, 3, 4, 4), size)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_zooming_out_is_bicubic_and_antialiased(scale):
    sides = (9 * scale, 8 * scale)
    lq = noise(2, 1, *sides)
    result = zoom_out(lq, scale)

    # Borders differ: PyTorch leaves out what MATLAB mirrors.
    for after, before in zip(result[:, 0], lq[:, 0], strict=True):
        expected = imresize(before.double().numpy(), (9, 8), (1 / scale, 1 / scale)).clip(0, 1)
        np.testing.assert_allclose(after[2:-2, 2:-2].numpy(), expected[2:-2, 2:-2], rtol=1e-5, atol=1e-6)


def test_zooming_out_keeps_to_the_range():
    # A sharp edge overshoots without the clamp.
    lq = torch.zeros(1, 1, 16, 16)
    lq[..., 7:] = 1
    raw = functional.interpolate(lq, (8, 8), mode="bicubic", antialias=True)
    result = zoom_out(lq, 2)

    assert raw.min() < -0.01
    assert raw.max() > 1.01
    assert torch.equal(result, raw.clamp(0, 1))


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 5))
def test_zoomed_out_sides_fit_the_networks(scale, multiple, height, width, min_size):
    lq = noise(1, 1, height, width)
    fits = [side for side in range(max(min_size, 1), 41) if side % multiple == 0]
    expected = [max((side for side in fits if side * scale <= given), default=None) for given in (height, width)]
    if None in expected:
        with refused("distill.patches-too-small") as caught:
            zoom_out(lq, scale, min_size=min_size, size_multiple=multiple)
        assert f"give {fits[0] * scale} px" in str(caught.value)
    else:
        result = zoom_out(lq, scale, min_size=min_size, size_multiple=multiple)
        assert result.shape == (1, 1, *expected)


def test_what_is_over_is_cut_off_so_that_the_scale_is_exact():
    lq = noise(1, 3, 19, 23)

    assert torch.equal(zoom_out(lq, 4, size_multiple=2), zoom_out(lq[:, :, :16, :16], 4))
