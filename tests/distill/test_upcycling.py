import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.data.augment import HFLIP, INVERSION, TRANSPOSE, VFLIP
from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.upcycling import Augmentation, UpcyclingTerm, draw_augmentation, tiles, zoom_in, zoom_out
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


def test_tiles_are_all_of_the_original_row_by_row():
    gt = noise(2, 3, 6, 9)
    found = tiles(gt, (2, 3))
    expected = [
        gt[n, :, top : top + 2, left : left + 3] for n in range(2) for top in range(0, 6, 2) for left in range(0, 9, 3)
    ]

    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("prob", [0.0, 0.2, 1.0])
def test_each_kind_of_augmentation_is_drawn_with_its_probability(prob):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        codes = draw_augmentation(4000, prob).transform_codes
    for kind in (HFLIP, VFLIP, TRANSPOSE, INVERSION):
        assert (codes & kind).bool().float().mean() == pytest.approx(prob, abs=0.03)
    assert codes.dtype == torch.int64


class Halves(SRNetwork):
    """Every pixel four times, less bright: outputs can be told from inputs."""

    info = ModelInfo(scale=2)

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, image):
        return self.factor * enlarge(image, 2)


def loss_of(**options):
    lq, gt = noise(2, 3, 8, 8), noise(2, 3, 16, 16)
    kd = Distiller(Halves(1.0), Teacher(Halves(0.5)), [UpcyclingTerm(consistency=False, **options)])
    return kd(lq, gt)["l_upcycling"].item(), lq, gt


def test_a_downscaled_input_has_itself_as_ground_truth():
    loss, lq, _ = loss_of(zoom=["out"], pixel_weight=3.0)
    small = zoom_out(lq, 2)
    expected = functional.l1_loss(enlarge(small, 2), 0.5 * enlarge(small, 2))
    expected += 3 * functional.l1_loss(enlarge(small, 2), lq)

    assert loss == pytest.approx(float(expected), rel=1e-5)


def test_all_tiles_are_inputs():
    loss, _, gt = loss_of(zoom=["in"], tiles=True)

    assert loss == pytest.approx(float(0.5 * gt.mean()), rel=1e-5)


def test_one_kind_of_zoom_can_be_drawn():
    tiled = {"tiles": True}
    both = [loss_of(zoom=["in"], **tiled)[0], loss_of(zoom=["out"])[0]]
    for prob, expected in ((1, both[0]), (0, both[1]), (None, sum(both) / 2)):
        assert loss_of(zoom_in_prob=prob, **tiled)[0] == pytest.approx(expected, rel=1e-5)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = [loss_of(zoom_in_prob=0.5, **tiled)[0] for _ in range(20)]
    assert {round(loss, 5) for loss in found} == {round(loss, 5) for loss in both}


@pytest.mark.parametrize(
    "options",
    [
        {"augment_prob": 1.5},
        {"zoom_in_prob": -0.1},
        {"pixel_weight": -1},
        {"zoom": ["out"], "tiles": True},
        {"zoom": ["in"], "pixel_weight": 1},
        {"zoom": ["in"], "zoom_in_prob": 0.5},
    ],
)
def test_options_that_mean_nothing_are_refused(options):
    with refused("distill.invalid-options"):
        UpcyclingTerm(**options)


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
