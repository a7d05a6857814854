"""From options to losses: what each loss term compares, what it trains, and what is refused."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.config.options import check_options
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT, Distiller
from imdn_kd.distill.feature_pairs import pool_to_smaller
from imdn_kd.distill.hooks import FeatureHooks
from imdn_kd.distill.schema import DistillOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import FeatureTerm, OutputTerm
from imdn_kd.errors import InputError
from imdn_kd.losses import L1Loss
from imdn_kd.losses.affinity import PairwiseLoss
from imdn_kd.registry import ARCHS, LOSSES
from tests.refused import refused

SIDE = 12


def imdn(num_feat, num_block, seed):
    torch.manual_seed(seed)
    return ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": num_feat, "num_block": num_block})


@pytest.fixture
def student():
    return imdn(8, 2, 0)


@pytest.fixture
def teacher():
    return Teacher(imdn(16, 4, 1))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    gt = torch.rand(2, 3, 2 * SIDE, 2 * SIDE, generator=generator)
    return {"lq": functional.avg_pool2d(gt, 2), "gt": gt}


def distiller_of(objectives, student, *teachers, **keywords):
    options = check_options({"objectives": objectives}, DistillOptions, "test")
    return build_distiller(options, student, teachers, **{"total": 10, "sides": [SIDE], **keywords})


def losses_of(distiller, batch, step=0):
    return distiller.losses(distiller.run_student(batch), step)


def features(network, lq):
    """What the blocks of an IMDN make of an input, by hand."""
    found = [network.fea_conv(lq)]
    for number in range(1, 9):
        block = getattr(network, f"IMDB{number}", None)
        if block is not None:
            found.append(block(found[-1]))
    return found


def test_without_a_teacher_a_student_learns_from_the_ground_truth(student, batch):
    distiller = Distiller(student, None, [OutputTerm(L1Loss(), weight=2.0, name="l_pix")])
    losses = losses_of(distiller, batch)
    assert set(losses) == {"l_pix"}
    torch.testing.assert_close(losses["l_pix"], 2 * functional.l1_loss(student(batch["lq"]), batch["gt"]))


def test_a_loss_between_images_compares_the_outputs_of_both(student, teacher, batch):
    distiller = distiller_of({"l_kd": {"type": "L1Loss", "loss_weight": 0.5}}, student, teacher)
    expected = 0.5 * functional.l1_loss(student(batch["lq"]), teacher(batch["lq"]))
    torch.testing.assert_close(losses_of(distiller, batch)["l_kd"], expected)


def test_a_loss_between_features_compares_blocks_of_the_same_relative_depth(student, teacher, batch):
    taps = {"taps": ["block.1", "block.2"], "tap_weights": [0.25, 0.75]}
    distiller = distiller_of({"l_pair": {"type": "PairwiseLoss", "loss_weight": 10, **taps}}, student, teacher)
    mine, theirs = features(student, batch["lq"]), features(teacher.network, batch["lq"])
    loss = PairwiseLoss()

    expected = 10 * (0.25 * loss(mine[1], theirs[2]) + 0.75 * loss(mine[2], theirs[4]))

    torch.testing.assert_close(losses_of(distiller, batch)["l_pair"], expected)


def test_paths_of_modules_can_be_paired_by_hand(student, teacher, batch):
    pairs = {"type": "PairwiseLoss", "taps": [{"IMDB1": "IMDB3"}, "fea_conv"]}
    distiller = distiller_of({"l": pairs}, student, teacher)
    mine, theirs = features(student, batch["lq"]), features(teacher.network, batch["lq"])
    expected = (PairwiseLoss()(mine[1], theirs[3]) + PairwiseLoss()(mine[0], theirs[0])) / 2
    torch.testing.assert_close(losses_of(distiller, batch)["l"], expected)


def halves(features):
    """The means of 2 x 2 pixels, added up by hand."""
    return (
        features[..., ::2, ::2] + features[..., 1::2, ::2] + features[..., ::2, 1::2] + features[..., 1::2, 1::2]
    ) / 4


@pytest.mark.parametrize("kind", ["PairwiseLoss", "AttentionLoss", "MimicLoss", "StatisticsLoss"])
@pytest.mark.parametrize("rte_is", ["student", "teacher"])
def test_features_of_unequal_size_are_pooled_to_the_smaller(kind, rte_is, batch):
    # IMDN_RTE works on half the height and width.
    torch.manual_seed(2)
    rte, full = ARCHS.build({"type": "IMDN_RTE", "num_feat": 12, "num_block": 2}), imdn(16, 2, 1)
    student, other = (rte, full) if rte_is == "student" else (full, rte)
    of_student, of_teacher = ("block1", "IMDB1") if rte_is == "student" else ("IMDB1", "block1")
    taps = {"taps": [{of_student: of_teacher}]}
    distiller = distiller_of({"l": {"type": kind, **taps}}, student, Teacher(other))
    with FeatureHooks(rte, ["block1"]).recording() as small, FeatureHooks(full, ["IMDB1"]).recording() as large:
        rte(batch["lq"]), full(batch["lq"])
    assert [2 * side for side in small["block1"].shape[2:]] == [*large["IMDB1"].shape[2:]]
    pooled = {"IMDB1": halves(large["IMDB1"]), "block1": small["block1"]}
    mine, theirs = pooled[of_student], pooled[of_teacher]
    if kind == "MimicLoss":
        mine = distiller.adapters["of_l"]["0_0"](mine)
    torch.testing.assert_close(losses_of(distiller, batch)["l"], LOSSES.build({"type": kind})(mine, theirs))
    (((pair,),),) = (term.pairs for term in distiller.terms)
    assert "are pooled to the smaller size" in pair.pooled


def test_each_side_is_pooled_to_the_smaller():
    wide, high = torch.rand(1, 2, 3, 12), torch.rand(1, 5, 9, 4, dtype=torch.bfloat16)
    mine, theirs = pool_to_smaller(wide, high)
    torch.testing.assert_close(mine, wide.unflatten(3, (4, 3)).mean(4))
    torch.testing.assert_close(theirs, high.float().unflatten(2, (3, 3)).mean(3))
    same = pool_to_smaller(high, high)
    assert same[0] is high


def test_without_taps_a_loss_between_features_compares_the_outputs(student, teacher, batch):
    distiller = distiller_of({"l_pair": {"type": "PairwiseLoss"}}, student, teacher)
    expected = PairwiseLoss()(student(batch["lq"]), teacher(batch["lq"]))
    torch.testing.assert_close(losses_of(distiller, batch)["l_pair"], expected)
    assert distiller.hooks is None


def test_a_cached_output_is_not_computed_again(student, teacher, batch, monkeypatch):
    objectives = {"l_kd": {"type": "L1Loss"}, "l_pair": {"type": "PairwiseLoss"}, "l_cd": {"type": "ContrastiveLoss"}}
    distiller = distiller_of(
        {**objectives, "l_adv": {"type": "HolisticTerm", "critic": {"num_feat": 4, "stages": 2}}},
        student,
        teacher,
        cache_key="t",
    )
    known = torch.rand_like(batch["gt"])
    monkeypatch.setattr(teacher.network, "forward", None)  # fails if it is called

    losses = losses_of(distiller, {**batch, "t": known})

    assert not distiller.teacher_required
    torch.testing.assert_close(losses["l_kd"], functional.l1_loss(student(batch["lq"]), known))
    torch.testing.assert_close(losses["l_pair"], PairwiseLoss()(student(batch["lq"]), known))


def test_a_cache_is_not_enough_where_features_or_other_inputs_are_compared(student, teacher):
    assert distiller_of({"l": {"type": "UpcyclingTerm"}}, student, teacher, cache_key="t").teacher_required
    features = {"type": "PairwiseLoss", "taps": ["head"]}
    assert distiller_of({"l": features}, student, teacher, cache_key="t").teacher_required
    assert not distiller_of({"l": {"type": "L1Loss"}}, student, teacher, cache_key="t").teacher_required


def test_the_cached_mean_of_several_teachers_is_enough_for_losses_between_outputs(student, teacher, batch):
    objectives = {"l_pair": {"type": "PairwiseLoss"}, "l_kd": {"type": "L1Loss"}}
    distiller = distiller_of(objectives, student, teacher, Teacher(imdn(8, 1, 4)), cache_key="t")
    known = torch.rand_like(batch["gt"])
    for each in distiller.teachers:
        each.network.forward = None  # fails if it is called
    losses = losses_of(distiller, {**batch, "t": known})
    assert not distiller.teacher_required
    torch.testing.assert_close(losses["l_pair"], PairwiseLoss()(student(batch["lq"]), known))


def test_several_teachers_count_by_their_weights(student, batch):
    teachers = Teacher(imdn(16, 2, 1), weight=1.0), Teacher(imdn(12, 4, 2), weight=3.0)
    objectives = {"l_kd": {"type": "MSELoss"}, "l_pair": {"type": "PairwiseLoss", "taps": ["block.2"]}}
    losses = losses_of(distiller_of(objectives, student, *teachers), batch)

    lq = batch["lq"]
    sr = teachers[0](lq) / 4 + teachers[1](lq) * 3 / 4
    torch.testing.assert_close(losses["l_kd"], functional.mse_loss(student(lq), sr))
    mine = features(student, lq)[2]
    parts = [PairwiseLoss()(mine, features(t.network, lq)[n]) for t, n in zip(teachers, (2, 4), strict=True)]
    torch.testing.assert_close(losses["l_pair"], parts[0] / 4 + parts[1] * 3 / 4)


def test_an_adapter_brings_the_student_to_the_width_of_the_teacher(student, teacher, batch):
    distiller = distiller_of({"l_mimic": {"type": "MimicLoss", "taps": ["block.2"]}}, student, teacher)
    (adapter,) = distiller.trainable_modules()[ADAPTERS]["of_l_mimic"].values()
    before = copy.deepcopy(student.state_dict())

    mine, theirs = features(student, batch["lq"])[2], features(teacher.network, batch["lq"])[4]
    expected = functional.mse_loss(functional.conv2d(mine, adapter.weight, adapter.bias), theirs)

    loss = losses_of(distiller, batch)["l_mimic"]
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert adapter.weight.grad.abs().sum() > 0
    assert student.fea_conv.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert student.state_dict().keys() == before.keys()
    same_width = distiller_of({"l": {"type": "MimicLoss", "taps": ["block.2"]}}, student, Teacher(imdn(8, 2, 3)))
    assert same_width.trainable_modules() == {}


def test_every_term_has_its_own_weight_schedule(student, teacher, batch):
    objectives = {"a": {"type": "L1Loss", "start_iter": 2}, "b": {"type": "L1Loss", "stop_iter": 4, "decay_iter": 3}}
    distiller = distiller_of(objectives, student, teacher)
    names = [set(losses_of(distiller, batch, step)) for step in (0, 2, 4)]
    assert names == [{"b"}, {"a", "b"}, {"a"}]
    losses = losses_of(distiller, batch, 3)
    torch.testing.assert_close(losses["b"], losses["a"] / 4)


def test_the_critic_takes_its_steps_after_the_student_on_the_same_outputs(student, teacher, batch):
    critic = {"num_feat": 4, "stages": 2}
    distiller = distiller_of({"l_adv": {"type": "HolisticTerm", "critic": critic, "n_critic": 3}}, student, teacher)
    optim_steps = distiller.optim_steps(0)
    assert [optim_step.trains for optim_step in optim_steps] == [(STUDENT,), *[(CRITIC,)] * 3]

    context = distiller.run_student(batch)
    sum(optim_steps[0].losses(context).values()).backward()
    module = distiller.trainable_modules()[CRITIC]
    assert all(parameter.grad is None and parameter.requires_grad for parameter in module.parameters())
    assert student.fea_conv.weight.grad.abs().sum() > 0

    student.zero_grad()
    sum(optim_steps[1].losses(context.release_graph()).values()).backward()
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_there_is_no_critic_while_its_weight_is_zero(student, teacher):
    term = {"type": "HolisticTerm", "critic": {"stages": 2}, "start_iter": 5}
    distiller = distiller_of({"l_adv": term, "l_kd": {"type": "L1Loss"}}, student, teacher)
    assert [len(distiller.optim_steps(step)) for step in (4, 5)] == [1, 2]


def test_the_critic_cannot_tell_by_the_rounding_of_cached_outputs(student, teacher, batch):
    """Cached teacher outputs have 8 bits: student outputs are quantised alike."""
    term = {"type": "HolisticTerm", "critic": {"num_feat": 4, "stages": 2}, "gradient_penalty": 0}
    distiller = distiller_of({"l_adv": term}, student, teacher, cache_key="t")
    context = distiller.run_student({**batch, "t": torch.rand_like(batch["gt"])})
    context.sr = context.sr + 0.3
    seen = []
    distiller.trainable_modules()[CRITIC].register_forward_pre_hook(lambda _, given: seen.append(given[1]))

    sum(distiller.optim_steps(0)[0].losses(context).values()).backward()
    distiller.optim_steps(0)[1].losses(context.release_graph())

    for image in (seen[0], seen[2]):
        levels = image.detach() * 255
        torch.testing.assert_close(levels, levels.round().clamp(0, 255), rtol=0, atol=1e-3)
    assert student.fea_conv.weight.grad.abs().sum() > 0


def test_zoomed_inputs_are_labelled_by_the_teacher(student, teacher, batch):
    whole = {"type": "UpcyclingTerm", "zoom": ["out"], "consistency": False, "loss": "MSELoss"}
    distiller = distiller_of({"l_up": whole}, student, teacher)
    small = functional.interpolate(batch["lq"], scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    expected = functional.mse_loss(student(small), teacher(small))
    torch.testing.assert_close(losses_of(distiller, batch)["l_up"], expected)


def test_consistency_undoes_what_the_student_was_shown(student, batch):
    """A student that commutes with rotations and inversion has no loss against itself."""
    distiller = distiller_of({"l_up": {"type": "UpcyclingTerm"}}, Nearest(), Teacher(Nearest()))
    torch.manual_seed(0)
    assert losses_of(distiller, batch)["l_up"] < 1e-6
    distiller = distiller_of({"l_up": {"type": "UpcyclingTerm"}}, student, Teacher(Nearest()))
    assert losses_of(distiller, batch)["l_up"] > 1e-2


class Nearest(SRNetwork):
    """Every pixel four times."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    @property
    def info(self):
        return ModelInfo(scale=2)

    def forward(self, x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3) + 0 * self.unused


def test_the_student_is_left_as_it_was(student, teacher, batch):
    student.train()
    before = copy.deepcopy(student.state_dict())
    state = torch.get_rng_state()
    distiller_of({"l": {"type": "PairwiseLoss", "taps": ["block.1"]}, "u": {"type": "UpcyclingTerm"}}, student, teacher)
    assert student.training
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())


@pytest.mark.parametrize(
    ("objectives", "code"),
    [
        ({"l": {"type": "Pairwise"}}, "distill.unknown-type"),
        ({"l": {"type": "holistic"}}, "distill.unknown-type"),
        ({"l": {"type": "PairwiseLoss", "bta": 1}}, "registry.unknown-option"),
        ({"l": {"type": "HolisticTerm", "critic": {"width": 4}}}, "registry.unknown-option"),
        ({"l": {"type": "HolisticTerm", "n_critic": 0}}, "distill.invalid-options"),
        ({"l": {"type": "HolisticTerm", "n_critic": 1.5}}, "distill.invalid-options"),
        ({"l": {"type": "HolisticTerm", "critic": {"type": "L1Loss"}}}, "registry.unknown-name"),
        ({"l": {"type": "UpcyclingTerm", "consistency": "maybe"}}, "distill.invalid-options"),
        ({"l": {"type": "UpcyclingTerm", "zoom": ["up"]}}, "distill.invalid-options"),
        ({"l": {"type": "UpcyclingTerm", "loss": "PairwiseLoss"}}, "distill.invalid-options"),
        ({"l": {"type": "L1Loss", "taps": ["head"]}}, "distill.no-features"),
        ({"l": {"type": "PairwiseLoss", "taps": ["blok.1"]}}, "hooks.unknown-module"),
        ({"l": {"type": "PairwiseLoss", "taps": ["block.7"]}}, "hooks.unknown-feature"),
        ({"l": {"type": "PairwiseLoss", "taps": ["IMDB*"]}}, "distill.features-mismatch"),
        ({"l": {"type": "ChannelAffinityLoss", "taps": [{"head": "sr"}]}}, "distill.features-mismatch"),
        ({"l": {"type": "ChannelAffinityLoss", "taps": ["head"]}}, "distill.features-mismatch"),
        ({"l_pix": {"type": "L1Loss"}}, "distill.name-taken"),
        ({"a": {"type": "HolisticTerm"}, "b": {"type": "HolisticTerm"}}, "distill.several-critics"),
        ({"l": {"type": "HolisticTerm", "critic": {"stages": 7}}}, "critic.image-too-small"),
    ],
)
def test_terms_that_cannot_be_used_are_refused_in_one_line(objectives, code, student, teacher):
    terms = [OutputTerm(L1Loss(), name="l_pix")]
    with refused(code) as caught:
        distiller_of(objectives, student, teacher, terms=terms)
    (line,) = caught.value.lines
    assert line.startswith(f"objectives.{[*objectives][-1]}: ")


def test_a_teacher_whose_outputs_are_not_finite_is_refused(student):
    network = imdn(8, 2, 1)
    network.upsampler[0].bias.data.fill_(float("inf"))
    with refused("distill.not-finite"):
        distiller_of({"l": {"type": "L1Loss"}}, student, Teacher(network))


def swinir():
    torch.manual_seed(0)
    spec = {"type": "SwinIR", "upscale": 2, "window_size": 8, "depths": [1], "num_heads": [1], "embed_dim": 6}
    return Teacher(ARCHS.build({**spec, "upsampler": "pixelshuffle"}))


def test_a_teacher_of_windows_is_compared_at_any_size_of_patches(student):
    """12 px are padded to 16."""
    features = {"type": "PairwiseLoss", "taps": ["body_out"]}
    distiller = distiller_of({"l": features}, student, swinir(), sides=[12, 16, 10])
    for side in (10, 12, 16):
        gt = torch.rand(2, 3, 2 * side, 2 * side)
        losses = losses_of(distiller, {"lq": functional.avg_pool2d(gt, 2), "gt": gt})
        assert losses["l"].isfinite()


def test_windows_are_no_maps_even_where_a_patch_is_one(student):
    with refused("hooks.no-map"):
        tap = {"IMDB1": "layers.0.residual_group.blocks.0.attn"}
        distiller_of({"l": {"type": "PairwiseLoss", "taps": [tap]}}, student, swinir(), sides=[8])


def test_a_size_of_patches_that_cannot_be_is_found_before_training(student, teacher):
    with refused("distill.patches-too-small"):
        distiller_of({"l": {"type": "UpcyclingTerm", "zoom": ["out"]}}, student, teacher, sides=[8, 1])


def test_the_critic_has_the_channels_of_the_student():
    torch.manual_seed(0)
    one, two = (
        ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": 8, "num_block": 1, "num_in_ch": 1}) for _ in "ab"
    )
    distiller = distiller_of({"l": {"type": "HolisticTerm", "critic": {"stages": 2}}}, one, Teacher(two))
    assert distiller.trainable_modules()[CRITIC].num_in_ch == 1


@pytest.mark.parametrize("term", [{"start_iter": 3}, {"stop_iter": 4}])
def test_some_weight_is_always_positive(term, student, teacher):
    with refused("distill.no-loss"):
        distiller_of({"l": {"type": "L1Loss", **term}}, student, teacher)
    whole = {"l": {"type": "L1Loss", **term}, "m": {"type": "L1Loss"}}
    assert len(distiller_of(whole, student, teacher).terms) == 2


def test_all_that_is_wrong_is_said_at_once(student, teacher):
    with pytest.raises(InputError) as caught:
        distiller_of({"a": {"type": "x"}, "b": {"type": "L1Loss"}, "c": {"type": "y"}}, student, teacher)
    assert [line.split(":")[0] for line in caught.value.lines] == ["objectives.a", "objectives.c"]


@pytest.mark.parametrize(
    ("term", "code"),
    [
        ({"taps": []}, "options.taps"),
        ({"taps": [{"a": "b", "c": "d"}]}, "options.taps"),
        ({"taps": ["a", "b"], "tap_weights": [1]}, "options.tap-weights"),
        ({"taps": ["a"], "tap_weights": [-1]}, "options.tap-weights"),
        ({"start_iter": 5, "stop_iter": 5}, "options.stop-iter"),
        ({"loss_weight": 0}, "options.out-of-range"),
        ({"loss_weight": float("inf")}, "options.out-of-range"),
        ({"tap_weights": [float("nan")]}, "options.out-of-range"),
        ({"loss_wieght": 1.0}, "options.unknown-key"),
        ({"weight": 1.0}, "options.unknown-key"),
        ({"name": "l"}, "options.unknown-key"),
    ],
)
def test_options_that_contradict_each_other_are_refused(term, code):
    with refused(code) as caught:
        check_options({"objectives": {"l": {"type": "PairwiseLoss", **term}}}, DistillOptions, "test")
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("name", ["keys", "type", "forward", "training"])
def test_any_word_is_a_name(name, student, teacher):
    assert distiller_of({name: {"type": "MimicLoss", "taps": ["head"]}}, student, teacher).trainable_modules()


@pytest.mark.parametrize("name", ["a.b", "a b", "", "1", "_x", "é", "d_score"])
def test_names_that_cannot_be_logged_are_refused(name):
    with refused("options.name") as caught:
        check_options({"objectives": {name: {"type": "L1Loss"}}}, DistillOptions, "test")
    assert len(caught.value.lines) == 1


def test_a_loss_between_features_is_a_feature_term(student, teacher):
    distiller = distiller_of({"l": {"type": "PairwiseLoss", "taps": ["head"]}}, student, teacher)
    (term,) = distiller.terms
    assert isinstance(term, FeatureTerm)
