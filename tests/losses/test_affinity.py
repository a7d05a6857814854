import inspect
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile

from imdn_kd.losses import pairwise_ops as pairs
from imdn_kd.losses.affinity import (
    ChannelAffinityLoss,
    InstanceAffinityLoss,
    InstanceCosineLoss,
    PairwiseLoss,
    SpatialAffinityLoss,
)
from imdn_kd.losses.local_similarity import LocalSimilarityLoss
from imdn_kd.registry import LOSSES
from tests.reference import affinity as reference
from tests.refused import refused

SHORT = (ChannelAffinityLoss, InstanceAffinityLoss, InstanceCosineLoss)
EVERY = [
    PairwiseLoss(),
    PairwiseLoss(distance="l1"),
    PairwiseLoss(alpha=12),
    PairwiseLoss(alpha=12, distance="l1"),
    PairwiseLoss(affinity="rbf"),
    PairwiseLoss(affinity="rbf", gamma=2, alpha=5, distance="l1"),
    PairwiseLoss(beta=2, pooling="max"),
    *(PairwiseLoss(preset=preset) for preset in ("paper", "skd_code", "fakd")),
    SpatialAffinityLoss(),
    *(
        kind(distance=d)
        for kind in (ChannelAffinityLoss, InstanceAffinityLoss, InstanceCosineLoss)
        for d in ("l1", "l2")
    ),
    *(LocalSimilarityLoss(kind=kind, distance=d) for kind in ("cosine", "distance") for d in ("l1", "l2")),
]
PUBLIC = (
    PairwiseLoss,
    SpatialAffinityLoss,
    ChannelAffinityLoss,
    InstanceAffinityLoss,
    InstanceCosineLoss,
    LocalSimilarityLoss,
)


def label(loss):
    options = {k: v for k, v in vars(loss).items() if k in inspect.signature(type(loss)).parameters and v is not None}
    return f"{type(loss).__name__}({','.join(map(str, options.values()))})"


every_loss = pytest.mark.parametrize("loss", EVERY, ids=label)
l1_or_l2 = pytest.mark.parametrize("distance", ["l1", "l2"])


def features(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0.2, 1, shape).astype(np.float32)


def of(loss, student, teacher):
    return float(loss(torch.from_numpy(student), torch.from_numpy(teacher)))


def value_and_gradient(loss, student, teacher):
    leaf = student.clone().requires_grad_()
    value = loss(leaf, teacher)
    value.backward()
    return value.detach(), leaf.grad


def close(value, expected):
    return value == pytest.approx(expected, rel=1e-5, abs=5e-7)  # the rounding of a cosine, where all is 0


# The formulas


@l1_or_l2
@pytest.mark.parametrize("alpha", [None, 2, 7, 9, 60])
@pytest.mark.parametrize(("beta", "pooling"), [(1, "avg"), (2, "avg"), (2, "max"), (3, "avg"), (9, "max")])
@pytest.mark.parametrize("size", [(6, 6), (5, 7), (7, 1), (1, 1)])
def test_the_pairwise_loss_is_the_mean_over_connected_pairs_of_nodes(alpha, beta, pooling, distance, size):
    student, teacher = features(2, 2, *size), features(2, 3, *size)
    options = {"alpha": alpha, "beta": beta, "pooling": pooling, "distance": distance}

    assert close(of(PairwiseLoss(**options), student, teacher), reference.pairwise(student, teacher, **options))


@l1_or_l2
@pytest.mark.parametrize("alpha", [None, 5])
@pytest.mark.parametrize("gamma", [0.4, 3])
def test_with_rbf_the_kernel_of_unit_vectors_takes_the_place_of_the_cosine(alpha, gamma, distance):
    student, teacher = features(2, 2, 5, 4), features(2, 3, 5, 4)
    value = of(PairwiseLoss(affinity="rbf", gamma=gamma, alpha=alpha, distance=distance), student, teacher)

    assert close(value, reference.pairwise(student, teacher, alpha=alpha, distance=distance, gamma=gamma))


@pytest.mark.parametrize("alpha", [4, 9, 25])
def test_away_from_the_border_the_nearest_nodes_are_a_window(alpha):
    side = 9
    found = pairs.nearest(side, side, alpha)
    rows, columns = found // side, found % side
    near = torch.maximum((rows - rows[:1]).abs(), (columns - columns[:1]).abs())

    assert torch.equal(found[0], torch.arange(side**2))
    assert [len(set(each)) for each in found.T.tolist()] == [alpha] * side**2
    assert torch.equal(near, near.sort(0).values)
    assert near[:, side * side // 2].max() == (1 if alpha <= 9 else 2)


@pytest.mark.parametrize("size", [(6, 4), (5, 7), (2, 3), (1, 4), (1, 1)])
def test_presets_are_the_published_settings(size):
    student, teacher = features(2, 3, *size), features(2, 4, *size)
    paper, fakd = reference.pairwise(student, teacher, beta=2), reference.pairwise(student, teacher, distance="l1")

    assert close(of(PairwiseLoss(preset="paper"), student, teacher), paper)
    assert close(of(PairwiseLoss(preset="fakd"), student, teacher), fakd)
    assert close(of(SpatialAffinityLoss(), student, teacher), fakd)
    assert close(of(PairwiseLoss(preset="skd_code"), student, teacher), reference.skd_code(student, teacher))


def test_the_lengths_in_the_released_code_are_constants_in_its_gradient():
    student, teacher = (torch.from_numpy(features(2, 3, 6, 4, seed=seed)).double() for seed in (0, 1))

    def released(student, teacher):
        matrices = []
        for f in (student, teacher):
            f = functional.max_pool2d(f, (3, 2), (3, 2), ceil_mode=True)
            f = (f / (f.norm(dim=1, keepdim=True).detach() + 1e-8)).flatten(2)
            matrices.append(f.transpose(1, 2) @ f)
        return (matrices[0] - matrices[1]).square().mean()

    expected = value_and_gradient(released, student, teacher)
    torch.testing.assert_close(value_and_gradient(PairwiseLoss(preset="skd_code"), student, teacher), expected)


@l1_or_l2
@pytest.mark.parametrize("kind", ["cosine", "distance"])
@pytest.mark.parametrize("size", [(4, 4), (3, 5), (1, 6), (2, 1)])
def test_local_similarity_compares_each_pixel_with_its_neighbours_inside_the_map(kind, distance, size):
    student, teacher = features(2, 3, *size), features(2, 2, *size)
    loss = LocalSimilarityLoss(kind=kind, distance=distance)

    assert close(of(loss, student, teacher), reference.local(student, teacher, kind, distance))


@l1_or_l2
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 5, 3, 1), (1, 3, 1, 1)])
def test_channel_and_instance_affinity_compare_planes_and_samples(distance, shape):
    student, teacher = features(*shape), features(*shape, seed=1)

    channel, instance = ChannelAffinityLoss(distance=distance), InstanceAffinityLoss(distance=distance)
    assert close(of(channel, student, teacher), reference.channel(student, teacher, distance))
    assert close(of(instance, student, teacher), reference.instance(student, teacher, distance))
    cosine = InstanceCosineLoss(distance=distance)
    assert close(of(cosine, student, teacher), reference.instance_cosine(student, teacher, distance))


@l1_or_l2
@pytest.mark.parametrize(
    ("kind", "expected"),
    [(InstanceAffinityLoss, reference.instance), (InstanceCosineLoss, reference.instance_cosine)],
)
def test_instances_may_differ_in_width(kind, expected, distance):
    student, teacher = features(4, 2, 5, 6), features(4, 3, 5, 6)

    assert close(of(kind(distance=distance), student, teacher), expected(student, teacher, distance))


@every_loss
def test_the_gradient_is_that_of_the_formula(loss):
    if getattr(loss, "preset", None) == "skd_code":
        pytest.skip("its gradient is by design another; tested above")
    student, teacher = (torch.from_numpy(features(3, 3, 5, 4, seed=seed)).double() for seed in (0, 1))

    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), teacher), fast_mode=True)


@pytest.mark.parametrize("distance", ["l1", "l2"])
@pytest.mark.parametrize("alpha", [None, 25])
def test_the_gradient_holds_for_many_nodes_of_few_channels_and_other_widths(distance, alpha):
    student, teacher = (torch.from_numpy(features(2, c, 6, 5)).double() for c in (2, 3))

    loss = PairwiseLoss(alpha=alpha, distance=distance)
    assert torch.autograd.gradcheck(loss, (student.requires_grad_(), teacher), fast_mode=True)


# All pairs without their matrix


def matrices(student, teacher, distance="l2"):
    ours, theirs = (functional.normalize(f, dim=1).flatten(2) for f in (student, teacher))
    difference = ours.mT @ ours - theirs.mT @ theirs
    return difference.square().mean() if distance == "l2" else difference.abs().mean()


@l1_or_l2
@pytest.mark.parametrize("widths", [(8, 8), (8, 12), (12, 4)])
def test_value_and_gradient_are_those_of_the_matrices_of_all_pairs(distance, widths):
    student, teacher = (torch.from_numpy(features(3, c, 24, 25, seed=seed)) for seed, c in enumerate(widths))
    expected = value_and_gradient(lambda s, t: matrices(s, t, distance), student, teacher)

    value, gradient = value_and_gradient(PairwiseLoss(distance=distance), student, teacher)
    torch.testing.assert_close(value, expected[0], rtol=1e-5, atol=0)
    # The sign of a difference of about 0, as that of a node with itself, is left to rounding.
    torch.testing.assert_close(gradient, expected[1], rtol=1e-5, atol=1e-5 * float(expected[1].abs().max()))


def test_both_ways_to_the_squares_and_all_sizes_of_tiles_agree(monkeypatch):
    student, teacher = (torch.from_numpy(features(3, c, 13)).double() for c in (3, 5))
    expected = pairs._from_channels(student, teacher, True)

    for piece in (10**6, 3 * 5**2, 1):
        monkeypatch.setattr(pairs, "_CHUNK", piece)
        torch.testing.assert_close(pairs._from_tiles(student, teacher, "l2", True), expected)
        torch.testing.assert_close(pairs._from_channels(student, teacher, True), expected)


@pytest.mark.parametrize("noise", [1e-1, 1e-3, 1e-5])
@pytest.mark.parametrize("turned", [False, True])
def test_a_student_that_is_almost_the_teacher_gets_an_exact_loss(noise, turned):
    # Turned: the same affinities by other channels, so that no difference of the features is small.
    teacher = torch.from_numpy(features(2, 8, 24, 24))
    student = teacher + noise * torch.from_numpy(features(2, 8, 24, 24, seed=1))
    turn = torch.linalg.qr(torch.from_numpy(features(8, 8)).double())[0] if turned else torch.eye(8).double()
    student = torch.einsum("ij,bjhw->bihw", turn, student.double()).float()
    expected = value_and_gradient(matrices, student.double(), teacher.double())

    value, gradient = value_and_gradient(PairwiseLoss(), student, teacher)
    rounding = 1e-7 / noise  # of the features themselves
    assert float(value) == pytest.approx(float(expected[0]), rel=1e-5 + 2 * rounding)
    worst = float((gradient - expected[1]).abs().max() / expected[1].abs().max())
    assert worst < 1e-5 + 10 * rounding


@every_loss
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_features_cost_nothing_and_have_no_gradient(loss, layout):
    teacher = torch.from_numpy(features(4, 6, 21, 22))
    value, gradient = value_and_gradient(loss, teacher.to(memory_format=layout), teacher)

    assert 0 <= value < 1e-15
    assert gradient.abs().max() < 1e-15


@every_loss
def test_without_a_gradient_to_find_the_value_is_the_same(loss):
    student, teacher = (torch.from_numpy(features(2, 3, 7, 6, seed=seed)) for seed in (0, 1))
    value, _ = value_and_gradient(loss, student, teacher)

    assert torch.equal(loss(student, teacher), value)
    with torch.no_grad():
        assert torch.equal(loss(student.requires_grad_(), teacher), value)


def peak_memory(call):
    """Bytes allocated at most above what there is before the call, temporaries within operators among them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(sizes))


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 100e6), ({"distance": "l1"}, 120e6), ({"alpha": 2}, 60e6), ({"alpha": 2, "distance": "l1"}, 60e6)],
)
def test_memory_is_that_of_the_features_and_not_of_all_pairs(options, most):
    student, teacher = (torch.from_numpy(features(4, 64, 48, 48, seed=seed)) for seed in (0, 1))
    student.requires_grad_()
    loss = PairwiseLoss(**options)

    # The features of one side are 2.4e6 bytes, the matrices of all pairs would be 2 * 85e6.
    assert peak_memory(lambda: loss(student, teacher).backward()) < most


def test_the_memory_test_sees_the_matrices_of_all_pairs():
    student, teacher = (torch.from_numpy(features(2, 4, 32, 32, seed=seed)) for seed in (0, 1))

    assert peak_memory(lambda: matrices(student, teacher)) > 2 * 2 * 4 * 1024**2


# What every loss promises


@every_loss
@given(shape=st.tuples(*[st.integers(1, 7)] * 4))
@settings(max_examples=25)
def test_any_size_gives_finite_values_and_gradients(loss, shape):
    student, teacher = (torch.from_numpy(features(*shape, seed=seed)) for seed in (0, 1))
    value, gradient = value_and_gradient(loss, student, teacher)

    assert value >= 0
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


@every_loss
@pytest.mark.parametrize("ours", [0.0, 0.5, 1e-30, -3.0])
@pytest.mark.parametrize("theirs", [0.0, 0.25, "noise"])
def test_flat_features_give_finite_values_and_moderate_gradients(loss, ours, theirs):
    teacher = torch.from_numpy(features(2, 3, 6, 5)) if theirs == "noise" else torch.full((2, 3, 6, 5), theirs)
    value, gradient = value_and_gradient(loss, torch.full((2, 3, 6, 5), ours), teacher)

    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    if abs(ours) != 1e-30 or not isinstance(loss, PairwiseLoss) or loss.preset != "skd_code":
        assert gradient.abs().max() < 10


@every_loss
def test_a_node_that_is_0_takes_part_in_the_value(loss):
    student, teacher = features(3, 3, 4, 4), features(3, 3, 4, 4, seed=1)
    student[:, :, 1, 1] = 0
    leaf = torch.from_numpy(student).requires_grad_()
    value = loss(leaf, torch.from_numpy(teacher))
    value.backward()

    assert torch.isfinite(leaf.grad).all()
    if isinstance(loss, PairwiseLoss) and loss.preset is None and loss.beta == 1 and loss.gamma is None:
        expected = reference.pairwise(student, teacher, alpha=loss.alpha, distance=loss.distance)
        assert close(float(value.detach()), expected)
        assert (leaf.grad[:, :, 1, 1] == 0).all()


@every_loss
def test_only_losses_that_compare_samples_depend_on_the_batch(loss):
    student, teacher = (torch.from_numpy(features(4, 3, 9, 8, seed=seed)) for seed in (0, 1))
    whole, whole_gradient = value_and_gradient(loss, student, teacher)
    parts = [value_and_gradient(loss, student[k : k + 2], teacher[k : k + 2]) for k in (0, 2)]
    mean = sum(value for value, _ in parts) / 2
    gradient = torch.cat([gradient for _, gradient in parts]) / 2

    if loss.compares_samples:
        assert not torch.isclose(whole, mean, rtol=1e-2)
    else:
        torch.testing.assert_close(whole, mean, rtol=1e-5, atol=0)
        torch.testing.assert_close(whole_gradient, gradient, rtol=1e-4, atol=1e-7)


@every_loss
@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_cosines_do_not_depend_on_the_scale_of_the_features(loss, factor):
    if getattr(loss, "kind", None) == "distance":
        pytest.skip("a distance does")
    student, teacher = features(3, 3, 6, 5), features(3, 3, 6, 5, seed=1)

    assert of(loss, factor * student, teacher) == pytest.approx(of(loss, student, teacher), rel=1e-4)


@every_loss
def test_the_teacher_gets_no_gradient(loss):
    student, teacher = (torch.from_numpy(features(2, 3, 5, 4, seed=seed)).requires_grad_() for seed in (0, 1))
    loss(student, teacher).backward()

    assert student.grad is not None
    assert teacher.grad is None


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_compared_in_float32(loss, dtype):
    student, teacher = (torch.from_numpy(features(2, 3, 6, 5, seed=seed)).to(dtype) for seed in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = value_and_gradient(loss, student, teacher)

    assert value.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(value, loss(student.float(), teacher.float()))


def test_the_gradient_is_scaled_by_what_the_loss_is_multiplied_with():
    student, teacher = (torch.from_numpy(features(2, 3, 5, 4, seed=seed)) for seed in (0, 1))
    for loss in (PairwiseLoss(), PairwiseLoss(alpha=9), PairwiseLoss(distance="l1")):
        _, once = value_and_gradient(loss, student, teacher)
        _, tenfold = value_and_gradient(lambda s, t, loss=loss: 10 * loss(s, t), student, teacher)
        torch.testing.assert_close(tenfold, 10 * once)


# Options


def test_they_are_registered():
    for kind in PUBLIC:
        assert isinstance(LOSSES.build({"type": kind.__name__}), kind)


@pytest.mark.parametrize(
    "field",
    [{"alpha": 3}, {"beta": 1}, {"pooling": "avg"}, {"distance": "l2"}, {"beta": 2, "alpha": 9}, {"affinity": "rbf"}],
)
def test_a_preset_beside_its_fields_is_refused(field):
    with refused("loss.preset-and-options"):
        PairwiseLoss(preset="paper", **field)


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: PairwiseLoss(alpha=1), "loss.out-of-range"),
        (lambda: PairwiseLoss(affinity="gauss"), "loss.unknown-choice"),
        (lambda: PairwiseLoss(affinity="rbf", gamma=0), "loss.out-of-range"),
        (lambda: PairwiseLoss(gamma=1), "loss.option-without-effect"),
        (lambda: PairwiseLoss(beta=0), "loss.out-of-range"),
        (lambda: PairwiseLoss(beta=1.5), "loss.out-of-range"),
        (lambda: PairwiseLoss(alpha=True), "loss.out-of-range"),
        (lambda: PairwiseLoss(pooling="mean"), "loss.unknown-choice"),
        (lambda: PairwiseLoss(distance="L2"), "loss.unknown-choice"),
        (lambda: PairwiseLoss(preset="skd"), "loss.unknown-choice"),
        (lambda: ChannelAffinityLoss(distance="kl"), "loss.unknown-choice"),
        (lambda: InstanceAffinityLoss(distance="kl"), "loss.unknown-choice"),
        (lambda: LocalSimilarityLoss(kind="dot"), "loss.unknown-choice"),
        (lambda: LocalSimilarityLoss(distance="kl"), "loss.unknown-choice"),
    ],
)
def test_values_that_mean_nothing_are_refused(build, code):
    with refused(code):
        build()


def test_channels_that_cannot_be_matched_are_refused():
    with refused("loss.shapes-differ"):
        of(ChannelAffinityLoss(), features(2, 3, 4, 4), features(2, 4, 4, 4))
