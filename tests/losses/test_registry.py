"""What every loss promises; a new one is tested as soon as it is registered."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imdn_kd.losses.base import FeatureLoss, PixelLoss
from imdn_kd.registry import LOSSES
from tests.refused import refused

SHAPE = (4, 3, 12, 10)

OTHER_OPTIONS = [
    {"type": "AttentionLoss", "p": 1, "form": "code"},
    {"type": "ChannelAffinityLoss", "distance": "l2"},
    {"type": "ChannelDistributionLoss", "temperature": 0.5},
    {"type": "ContrastiveLoss", "space": "wavelet"},
    {"type": "ContrastiveLoss", "others": 3},
    {"type": "FFTLoss", "norm": "ortho"},
    {"type": "FrequencyBandLoss", "bands": [0, 0, 1]},
    {"type": "InstanceAffinityLoss", "distance": "l2"},
    {"type": "LocalSimilarityLoss", "kind": "distance", "distance": "l1"},
    {"type": "MimicLoss", "distance": "l1"},
    {"type": "MmdLoss", "kernel": "linear"},
    {"type": "MmdLoss", "kernel": "rbf"},
    {"type": "PairwiseLoss", "alpha": 9, "beta": 2, "pooling": "max", "distance": "l1"},
    {"type": "PairwiseLoss", "alpha": 5, "affinity": "rbf", "gamma": 1},
    {"type": "StatisticsLoss", "statistic": "power", "p": 3},
    {"type": "StatisticsLoss", "statistic": "mean_power", "p": 3},
    {"type": "StatisticsLoss", "statistic": "absolute_power", "p": 1.5},
    {"type": "StatisticsLoss", "statistic": "max"},
    {"type": "StatisticsLoss", "statistic": "min", "distance": "l1"},
    {"type": "StatisticsLoss", "statistic": "std"},
    {"type": "StatisticsLoss", "statistic": "std", "over": "space"},
    {"type": "WaveletLoss", "levels": 3, "low": 0},
]

every_name = pytest.mark.parametrize("name", list(LOSSES))
every_loss = pytest.mark.parametrize(
    "spec",
    [*({"type": name} for name in LOSSES), *OTHER_OPTIONS],
    ids=lambda spec: "-".join(str(value) for value in spec.values()),
)


def roles(loss):
    """What `loss` compares; the first is the one that learns."""
    return getattr(loss, "inputs", ("student", "teacher"))


def requires_same_channels(loss):
    return getattr(loss, "requires_same_channels", True)


def compares_samples(loss):
    return getattr(loss, "compares_samples", False)


def maps(loss, shape=SHAPE, *, seed=0, dtype=torch.float32):
    """Images in [0, 1] or features, which have both signs, as `loss` wants them."""
    draw = torch.randn if isinstance(loss, FeatureLoss) else torch.rand
    return draw(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def arguments(loss, shape=SHAPE, *, dtype=torch.float32):
    """One for each role, all different; the first is a leaf with a gradient."""
    first, *others = (maps(loss, shape, seed=seed, dtype=dtype) for seed in range(len(roles(loss))))
    return first.requires_grad_(), *others


def with_gradient(loss, student, *others):
    value = loss(student, *others)
    (gradient,) = torch.autograd.grad(value, student)
    return value.detach(), gradient


def assert_finite(value, gradient):
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_the_registry_holds_the_losses_of_option_files():
    assert {"L1Loss", "MSELoss", "CharbonnierLoss", "FFTLoss"} <= set(LOSSES)


@every_loss
def test_it_is_a_positive_scalar_and_almost_nothing_where_student_and_teacher_are_equal(spec):
    loss = LOSSES.build(spec)
    student, teacher, *others = arguments(loss)
    value = loss(student, teacher, *others)

    assert value.shape == ()
    assert value > 1e-4
    assert 0 <= loss(student, student.detach().clone(), *others) <= 1.001e-6  # Charbonnier: sqrt(eps)


@every_loss
def test_its_gradient_reaches_the_student(spec):
    loss = LOSSES.build(spec)
    _, gradient = with_gradient(loss, *arguments(loss))

    assert torch.isfinite(gradient).all()
    # Of images, every plane; of features, every sample: some statistics are those of few channels.
    within = (2, 3) if isinstance(loss, PixelLoss) else (1, 2, 3)
    assert (gradient.abs().amax(within) > 0).all()


@every_loss
def test_features_and_results_of_the_teacher_get_no_gradient(spec):
    loss = LOSSES.build(spec)
    if isinstance(loss, PixelLoss):
        pytest.skip("it compares with an original, which is no result of a network")
    student, *others = arguments(loss)
    for other in others:
        other.requires_grad_()
    loss(student, *others).backward()

    assert student.grad is not None
    assert all(other.grad is None for other in others)


@every_loss
def test_it_does_not_depend_on_the_size_of_the_batch(spec):
    loss = LOSSES.build(spec)
    if compares_samples(loss):
        pytest.skip("it compares the samples of a batch with each other")
    given = [each.detach() for each in arguments(loss)]
    value = loss(*given)
    halves = (loss(*(each[:2] for each in given)) + loss(*(each[2:] for each in given))) / 2

    torch.testing.assert_close(value, halves, rtol=1e-5, atol=0)
    torch.testing.assert_close(loss(*(each.repeat(2, 1, 1, 1) for each in given)), value, rtol=1e-5, atol=0)


@every_loss
def test_it_does_not_depend_on_the_order_of_the_batch(spec):
    loss = LOSSES.build(spec)
    given = [each.detach() for each in arguments(loss)]

    torch.testing.assert_close(loss(*(each.flip(0) for each in given)), loss(*given), rtol=1e-5, atol=0)


@every_loss
def test_it_does_not_depend_on_the_memory_format(spec):
    loss = LOSSES.build(spec)
    given = arguments(loss)
    last = [each.detach().to(memory_format=torch.channels_last) for each in given]

    torch.testing.assert_close(
        with_gradient(loss, last[0].requires_grad_(), *last[1:]), with_gradient(loss, *given), rtol=1e-5, atol=1e-8
    )


@every_loss
@pytest.mark.parametrize("channels", [1, 5])
def test_a_teacher_of_another_width_is_welcome_where_widths_need_not_be_the_same(spec, channels):
    loss = LOSSES.build(spec)
    if requires_same_channels(loss):
        pytest.skip("it needs the same width")
    student = maps(loss).requires_grad_()
    value, gradient = with_gradient(loss, student, maps(loss, (4, channels, 12, 10), seed=1))

    assert value > 1e-4
    assert_finite(value, gradient)
    assert (gradient.abs().amax((1, 2, 3)) > 0).all()


@every_loss
@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("offset", [0.0, 0.25])
def test_flat_and_equal_maps_give_finite_values_and_gradients(spec, level, offset):
    loss = LOSSES.build(spec)
    student = torch.full(SHAPE, level + offset, requires_grad=True)

    assert_finite(*with_gradient(loss, student, *(torch.full(SHAPE, level) for _ in roles(loss)[1:])))


@every_loss
def test_maps_of_zeros_beside_others_give_finite_values_and_gradients(spec):
    loss = LOSSES.build(spec)
    given = arguments(loss)
    for dark in range(len(given)):
        mixed = [torch.zeros(SHAPE) if k == dark else each.detach() for k, each in enumerate(given)]

        assert_finite(*with_gradient(loss, mixed[0].requires_grad_(), *mixed[1:]))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_compared_in_full_precision(spec, dtype):
    loss = LOSSES.build(spec)
    exact, *others = arguments(loss)
    student = exact.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = with_gradient(loss, student, *others)
        all_half = loss(student, *(other.to(dtype) for other in others))

    assert value.dtype == all_half.dtype == torch.float32
    assert_finite(value, gradient)
    torch.testing.assert_close(value, loss(student.detach().float(), *others), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        all_half, loss(student.float(), *(other.to(dtype).float() for other in others)), rtol=1e-6, atol=0
    )


@every_loss
def test_autocast_changes_nothing(spec):
    loss = LOSSES.build(spec)
    given = arguments(loss)
    with torch.autocast("cpu", torch.bfloat16):
        results = with_gradient(loss, *given)

    torch.testing.assert_close(results, with_gradient(loss, *given), rtol=1e-6, atol=0)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equal_half_precision_maps_give_finite_gradients(spec, dtype):
    loss = LOSSES.build(spec)
    student = maps(loss).to(dtype).requires_grad_()

    assert_finite(*with_gradient(loss, student, *(student.detach().clone() for _ in roles(loss)[1:])))


@every_loss
def test_its_gradient_is_that_of_its_formula(spec):
    loss = LOSSES.build(spec)

    assert torch.autograd.gradcheck(loss, arguments(loss, (2, 3, 5, 4), dtype=torch.float64), fast_mode=True)


@every_loss
@given(shape=st.tuples(*[st.integers(1, 9)] * 4), channels=st.integers(1, 9))
def test_maps_of_any_size(spec, shape, channels):
    loss = LOSSES.build(spec)
    student, *others = arguments(loss, shape)
    if not requires_same_channels(loss):
        others = [maps(loss, (shape[0], channels, *shape[2:]), seed=1)]

    assert_finite(*with_gradient(loss, student, *others))


@every_loss
@pytest.mark.parametrize("shape", [(4, 3, 12, 9), (4, 3, 11, 10), (1, 3, 12, 10), (4, 1, 12, 10), (3, 12, 10)])
def test_shapes_that_differ_are_refused(spec, shape):
    loss = LOSSES.build(spec)
    if shape == (4, 1, 12, 10) and not requires_same_channels(loss):
        pytest.skip("widths may differ")
    given = arguments(loss)
    for wrong in range(len(given)):
        mixed = [maps(loss, shape) if k == wrong else each for k, each in enumerate(given)]
        with refused("loss.shapes-differ") as caught:
            loss(*mixed)
        assert str(shape) in str(caught.value)
        assert "\n" not in str(caught.value)


@every_name
def test_options_are_keywords(name):
    with pytest.raises(TypeError):
        LOSSES.get(name)(1.0)
    with refused("registry.unknown-option"):
        LOSSES.build({"type": name, "loss_wieght": 1.0})
