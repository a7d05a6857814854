"""What every loss term promises, as it is registered; flows between layers and likelihoods of features."""

from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from imdn_kd.distill.distiller import ADAPTERS
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import FeatureTerm
from imdn_kd.losses.contrastive import ContrastiveLoss
from imdn_kd.losses.flow import FlowLoss
from imdn_kd.losses.variational import VariationalLoss
from imdn_kd.registry import LOSS_TERMS
from tests.distill.test_builder import batch, distiller_of, features, imdn, losses_of, student, teacher  # noqa: F401
from tests.refused import refused

BLOCKS = ["block.1", "block.2"]
NEEDED = {
    "FspTerm": {"taps": BLOCKS},
    "HolisticTerm": {"critic": {"num_feat": 4, "stages": 2}},
    "VidTerm": {"taps": BLOCKS},
}
OTHER_OPTIONS = [
    {"type": "VidTerm", "taps": ["body_out", "sr"], "distribution": "laplace", "tap_weights": [1, 3]},
    {"type": "FspTerm", "taps": ["head", "sr"]},
    {"type": "UpcyclingTerm", "zoom": ["out"], "consistency": False},
    {"type": "UpcyclingTerm", "zoom_in_prob": 0.5, "augment_prob": 0.3, "tiles": True, "pixel_weight": 1},
    {"type": "ContrastiveLoss", "others": 1},
    {"type": "ContrastiveLoss", "taps": ["block.1", "body_out"]},
]
every_term = pytest.mark.parametrize(
    "spec",
    [*({"type": name, **NEEDED.get(name, {})} for name in LOSS_TERMS), *OTHER_OPTIONS],
    ids=lambda spec: "-".join(map(str, spec.values())),
)


@every_term
def test_its_gradient_reaches_the_student_and_its_adapters_and_never_the_teacher(spec, student, teacher, batch):  # noqa: F811
    distiller = distiller_of({"l": spec}, student, teacher)
    loss = losses_of(distiller, batch)["l"]
    loss.backward()

    assert loss.shape == ()
    assert loss.isfinite()
    assert student.fea_conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad.isfinite().all() for parameter in student.parameters() if parameter.grad is not None)
    assert all(parameter.grad is not None for parameter in distiller.adapters.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@every_term
def test_what_it_learns_is_in_the_state_of_the_distiller(spec, student, teacher, batch):  # noqa: F811
    distillers = [distiller_of({"l": spec}, student, teacher) for _ in range(2)]
    distillers[1].load_state_dict(distillers[0].state_dict())
    critics = [distiller.critic for distiller in distillers]
    if critics[0] is not None:
        critics[1].load_state_dict(critics[0].state_dict())
    losses = []
    for distiller in distillers:
        torch.manual_seed(3)
        losses.append(losses_of(distiller, batch)["l"])
    assert torch.equal(*losses)


def test_flows_go_from_each_layer_to_the_next(student, batch):  # noqa: F811
    same = imdn(8, 4, 1)
    distiller = distiller_of({"l": {"type": "FspTerm", "taps": ["head", *BLOCKS]}}, student, Teacher(same))
    mine, theirs = features(student, batch["lq"]), features(same, batch["lq"])
    mine, theirs = mine[:3], [theirs[0], theirs[2], theirs[4]]
    flows = [FlowLoss()(ours, others) for ours, others in zip(pairwise(mine), pairwise(theirs), strict=True)]

    assert distiller.trainable_modules() == {}
    torch.testing.assert_close(losses_of(distiller, batch)["l"], sum(flows) / 2)


def test_layers_of_other_sizes_are_pooled_and_of_other_widths_adapted(student, teacher, batch):  # noqa: F811
    distiller = distiller_of({"l": {"type": "FspTerm", "taps": ["block.1", "sr"]}}, student, teacher)
    ((adapter,),) = (each.values() for each in distiller.trainable_modules()[ADAPTERS].values())
    mine, theirs = features(student, batch["lq"])[1], features(teacher.network, batch["lq"])[2]
    outputs = (functional.avg_pool2d(network(batch["lq"]), 2) for network in (student, teacher))
    ours, others = outputs
    expected = FlowLoss()((functional.conv2d(mine, adapter.weight, adapter.bias), ours), (theirs, others))
    torch.testing.assert_close(losses_of(distiller, batch)["l"], expected)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_the_likelihood_is_that_of_what_the_adapters_predict(distribution, student, teacher, batch):  # noqa: F811
    spec = {"type": "VidTerm", "taps": BLOCKS, "tap_weights": [0.25, 0.75], "distribution": distribution}
    distiller = distiller_of({"l": spec}, student, teacher)
    adapters = [*distiller.trainable_modules()[ADAPTERS]["of_l"].values()]
    mine, theirs = features(student, batch["lq"]), features(teacher.network, batch["lq"])
    loss = VariationalLoss(distribution=distribution)
    parts = [loss(*adapter(mine[n]), theirs[2 * n]) for n, adapter in enumerate(adapters, 1)]

    torch.testing.assert_close(losses_of(distiller, batch)["l"], 0.25 * parts[0] + 0.75 * parts[1])
    assert all(isinstance(adapter.location[-1], nn.Conv2d) for adapter in adapters)
    # Where widths are the same, too: the adapters predict.
    alike = distiller_of({"l": {"type": "VidTerm", "taps": BLOCKS}}, student, Teacher(imdn(8, 2, 3)))
    assert set(alike.trainable_modules()) == {ADAPTERS}


def test_images_can_be_contrasted_by_features_of_the_teacher(student, teacher, batch, monkeypatch):  # noqa: F811
    taps = {"taps": ["block.1", "head"]}
    distiller = distiller_of({"l": {"type": "ContrastiveLoss", "others": 1, **taps}}, student, teacher, cache_key="t")
    known = torch.rand_like(batch["gt"])
    context = distiller.run_student({**batch, "t": known})
    monkeypatch.setattr(teacher.network.upsampler, "forward", None)  # fails if it is called
    loss = distiller.losses(context, 0)["l"]
    seen = [features(teacher.network, image) for image in (context.sr, known, context.enlarged)]
    expected = [ContrastiveLoss(others=1)(*(each[number] for each in seen)) for number in (1, 0)]

    torch.testing.assert_close(loss, sum(expected) / 2)
    (gradient,) = torch.autograd.grad(loss, context.sr, retain_graph=True)
    (by_hand,) = torch.autograd.grad(sum(expected) / 2, context.sr)
    torch.testing.assert_close(gradient, by_hand)
    assert distiller.teacher_required


@pytest.mark.parametrize("spec", [{"type": "FspTerm", "taps": BLOCKS}, {"type": "VidTerm", "taps": BLOCKS}])
def test_cached_features_take_the_place_of_the_teacher(spec, student, teacher, batch, monkeypatch):  # noqa: F811
    distiller = distiller_of({"l": spec}, student, teacher)
    expected = losses_of(distiller, batch)["l"]
    (term,) = distiller.terms
    maps = distiller.maps()["l"]
    found = features(teacher.network, batch["lq"])
    known = {"first": found[2].half(), "second": found[4].half()}
    distiller.use_cached(dict(zip(maps.values(), known, strict=True)))

    monkeypatch.setattr(teacher.network, "forward", None)  # fails if it is called
    assert isinstance(term, FeatureTerm)
    assert not distiller.teacher_required
    torch.testing.assert_close(losses_of(distiller, {**batch, **known})["l"], expected, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"type": "FspTerm"}, "distill.invalid-options"),
        ({"type": "FspTerm", "taps": ["block.1"]}, "distill.invalid-options"),
        ({"type": "FspTerm", "taps": BLOCKS, "tap_weights": [1, 2]}, "distill.no-tap-weights"),
        ({"type": "VidTerm", "taps": BLOCKS, "init_variance": 0}, "distill.invalid-options"),
        ({"type": "VidTerm", "taps": BLOCKS, "distribution": "cauchy"}, "loss.unknown-choice"),
        ({"type": "HolisticTerm", "taps": BLOCKS}, "distill.no-features"),
        ({"type": "ContrastiveLoss", "taps": ["nowhere"]}, "hooks.unknown-module"),
        ({"type": "ContrastiveLoss", "taps": [{"head": "head"}]}, "distill.no-features"),
        ({"type": "ContrastiveLoss", "taps": ["head"], "space": "wavelet"}, "distill.no-features"),
    ],
)
def test_options_that_mean_nothing_are_refused(spec, code, student, teacher):  # noqa: F811
    with refused(code):
        distiller_of({"l": spec}, student, teacher)
