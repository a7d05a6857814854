"""The library door: `Distiller` in a training loop of one's own, with any network."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import imdn_kd
from imdn_kd import (
    ContrastiveTerm,
    Distiller,
    FeatureTerm,
    HolisticTerm,
    OutputTerm,
    Teacher,
    UpcyclingTerm,
    create_model,
    list_models,
    losses,
)
from imdn_kd.inference.model_file import ModelFile, save_model
from tests.refused import refused
from tests.training.small_runs import make_data, metrics, small_options


def student(**options):
    torch.manual_seed(0)
    return create_model("IMDN_x2", **{"num_feat": 8, "num_block": 2, **options})


def teacher(**options):
    torch.manual_seed(1)
    return Teacher(create_model("IMDN_x2", **{"num_feat": 16, "num_block": 4, **options}))


def batch(channels=3, scale=2):
    gt = torch.rand(2, channels, 12 * scale, 12 * scale, generator=torch.Generator().manual_seed(0))
    return functional.avg_pool2d(gt, scale), gt


def ten_lines(student, teacher):
    return Distiller(
        student,
        teacher,
        [
            OutputTerm(losses.L1Loss(), target="gt"),
            OutputTerm(losses.L1Loss(), target="teacher"),
            FeatureTerm(losses.PairwiseLoss(preset="paper"), at=["body_out"], weight=10),
        ],
    )


TEN_LINES = """
from imdn_kd import Distiller, FeatureTerm, OutputTerm, Teacher, create_model, losses
student, teacher = create_model("imdn_rtc_x2"), Teacher("IMDN_x2.pth")
kd = Distiller(student, teacher, [
    OutputTerm(losses.L1Loss(), target="gt"),
    OutputTerm(losses.L1Loss(), target="teacher"),
    FeatureTerm(losses.PairwiseLoss(preset="paper"), at=["body_out"], weight=10),
])
optimizer = torch.optim.Adam(kd.parameters())      # student and adapters, never the teacher
for lq, gt in loader:
    named = kd(lq, gt)
    optimizer.zero_grad(); sum(named.values()).backward(); optimizer.step()
"""


def test_ten_lines_distil(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(create_model("IMDN_x2", num_feat=8, num_block=1).state_dict(), "IMDN_x2.pth")
    names = {"torch": torch, "loader": [batch()] * 2}
    exec(TEN_LINES, names)
    assert [*names["named"]] == ["l_gt", "l_teacher", "l_feature"]


def test_the_losses_are_those_of_imdn_kd_train_on_the_same_batch(tmp_path):
    from imdn_kd.training.run import prepare

    torch.manual_seed(1)
    path = tmp_path / "teacher.safetensors"
    save_model(path, ModelFile(create_model("IMDN_x2", num_feat=12, num_block=3)))
    objectives = {
        "l_teacher": {"type": "L1Loss"},
        "l_feature": {"type": "PairwiseLoss", "preset": "paper", "taps": ["body_out"], "loss_weight": 10},
    }
    options = small_options(
        make_data(tmp_path),
        {
            "network_t": {"weights": str(path)},
            "distill": {"objectives": objectives, "check_images": 0},
            "train": {"total_iter": 1, "scheduler": None},
            "logger": {"print_freq": 1},
        },
    )
    trainer = prepare(options, root=tmp_path)
    ((planes,),) = trainer.setup.loader.batches(0, 1, torch.device("cpu"))
    network = copy.deepcopy(trainer.network)
    trainer.run()
    (logged,) = (record["losses"] for record in metrics(tmp_path) if record["step"] == 1)

    named = ten_lines(network, str(path))(planes["lq"], planes["gt"])

    found = {name: loss.item() for name, loss in named.items()}
    logged["l_gt"] = logged.pop("l_pix")
    assert found == pytest.approx(logged, rel=1e-6, abs=1e-6)


def test_a_step_changes_the_student_and_never_the_teacher():
    kd = ten_lines(student(), teacher())
    before = copy.deepcopy(kd.state_dict())
    frozen = copy.deepcopy(kd.teachers[0].state_dict())
    optimizer = torch.optim.Adam(kd.parameters())
    kd.train()
    sum(kd(*batch()).values()).backward()
    optimizer.step()

    assert any(not torch.equal(value, before[key]) for key, value in kd.state_dict().items())
    assert all(torch.equal(value, frozen[key]) for key, value in kd.teachers[0].state_dict().items())
    assert all(parameter.grad is None for parameter in kd.teachers[0].parameters())
    assert not any(module.training for module in kd.teachers[0].modules())


def test_parameters_are_those_of_the_student_and_its_adapters():
    network, mimic = student(), FeatureTerm(losses.MimicLoss(), at=["block.1", {"IMDB2": "IMDB3"}])
    holistic = HolisticTerm(critic={"num_feat": 4, "stages": 2})
    kd = Distiller(network, teacher(), [mimic, holistic])
    adapters = [*mimic.adapters.parameters()]

    assert len(adapters) == 4
    assert [*map(id, kd.parameters())] == [*map(id, [*network.parameters(), *adapters])]
    assert kd.critic is holistic.critic
    assert set(kd(*batch())) == {"l_feature", "l_holistic"}


SPECTRAL = {"critic": {"num_feat": 4, "stages": 2, "spectral_norm": True}, "loss": "hinge", "gradient_penalty": 0.0}
CLIPPED = {"critic": {"num_feat": 4, "stages": 2}, "clip": 0.01, "gradient_penalty": 0.0}


@pytest.mark.parametrize(
    "options", [{"critic": {"num_feat": 4, "stages": 2}}, SPECTRAL, CLIPPED], ids=["penalty", "spectral", "clipped"]
)
def test_a_critic_is_trained_on_the_outputs_of_the_same_iteration(options):
    kd = Distiller(student(), teacher(), [HolisticTerm(**options)])
    before = copy.deepcopy(kd.critic.state_dict())
    optimizers = {
        "student": torch.optim.Adam(kd.parameters()),
        "critic": torch.optim.Adam(kd.critic.parameters(), betas=(0.0, 0.9)),
    }
    lq, gt = batch()
    context = kd.run_student({"lq": lq, "gt": gt})
    for step in kd.optim_steps(0):
        (name,) = step.trains
        optimizers[name].zero_grad()
        sum(step.losses(context).values()).backward()
        optimizers[name].step()
        context.release_graph()

    assert any(not torch.equal(value, before[key]) for key, value in kd.critic.state_dict().items())
    sum(kd(lq, gt).values()).backward()
    if "clip" in options:
        assert max(weights.detach().abs().max().item() for weights in kd.critic.parameters()) <= options["clip"] * (
            1 + 1e-6
        )


@pytest.mark.parametrize(
    ("options", "code"), [({"loss": "ls"}, "loss.unknown-choice"), ({"clip": 0.0}, "distill.invalid-options")]
)
def test_a_critic_with_options_that_are_not_possible_is_refused(options, code):
    with refused(code):
        HolisticTerm(**options)


class Own(nn.Module):
    """What a user has: not a network of this package."""

    def __init__(self, width, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(nn.Conv2d(width, width, 3, padding=1) for _ in range(2)))
        self.last = nn.Conv2d(width, 4 * channels, 3, padding=1)

    def forward(self, x):
        return functional.pixel_shuffle(self.last(self.blocks(self.first(x)).relu()), 2)


@pytest.mark.parametrize("channels", [3, 1])
def test_any_module_is_a_student_or_a_teacher(channels):
    torch.manual_seed(0)
    own, other = Own(6, channels), Own(10, channels)
    terms = [
        OutputTerm(nn.MSELoss()),
        OutputTerm(nn.L1Loss(), target="teacher", name="l_kd"),
        FeatureTerm(losses.MimicLoss(), at=["blocks.0"]),
        FeatureTerm(nn.MSELoss(), name="l_sr"),
        ContrastiveTerm(losses.ContrastiveLoss()),
        UpcyclingTerm(),
    ]
    kd = Distiller(own, other, terms)
    named = kd(*batch(channels))
    sum(named.values()).backward()

    assert [*named] == ["l_gt", "l_kd", "l_feature", "l_sr", "l_contrastive", "l_upcycling"]
    assert all(parameter.grad is not None for parameter in kd.parameters())
    lq, gt = batch(channels)
    torch.testing.assert_close(named["l_gt"], functional.mse_loss(own(lq), gt))
    torch.testing.assert_close(named["l_kd"], functional.l1_loss(own(lq), other(lq)))


@pytest.mark.parametrize("other", [Own(4, 1), nn.Upsample(scale_factor=3)])
def test_a_teacher_of_another_scale_or_other_channels_is_refused(other):
    with refused("teacher.student-mismatch"):
        Distiller(student(), other, [OutputTerm(losses.L1Loss(), target="teacher")])


def test_weights_may_follow_the_iteration():
    kd = Distiller(student(), None, [OutputTerm(losses.L1Loss(), weight=lambda iteration: 0.5**iteration)])
    lq, gt = batch()
    torch.testing.assert_close(kd(lq, gt, iteration=2)["l_gt"], kd(lq, gt)["l_gt"] / 4)


def test_everything_moves_with_the_student():
    kd = Distiller(student(), teacher(), [OutputTerm(losses.L1Loss(), target="teacher")]).to(torch.float64)
    assert {parameter.dtype for parameter in kd.teachers[0].parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        (lambda: [OutputTerm(losses.L1Loss()), OutputTerm(losses.MSELoss())], "distill.name-taken"),
        (lambda: [FeatureTerm(losses.MimicLoss(), at=["no.such"])], "hooks.unknown-module"),
        (lambda: [FeatureTerm(nn.MSELoss(), at=["block.1"])], "distill.features-mismatch"),
        (lambda: [FeatureTerm(nn.MSELoss(), at="block.1")], "distill.invalid-options"),
        (lambda: [FeatureTerm(losses.MimicLoss(), at=["head"], at_weights=[1, 2])], "distill.features-mismatch"),
        (lambda: [OutputTerm(losses.L1Loss(), target="hr")], "distill.invalid-options"),
    ],
)
def test_terms_that_cannot_be_used_are_refused(terms, code):
    with refused(code):
        Distiller(student(), teacher(), terms())


@pytest.mark.parametrize("target", [OutputTerm(losses.L1Loss(), target="teacher"), FeatureTerm(losses.MimicLoss())])
def test_terms_that_need_a_teacher_are_refused_without_one(target):
    with refused("distill.no-teacher"):
        Distiller(student(), None, [target])


def test_models_are_built_by_name():
    network = create_model("imdn_rtc_x3", num_in_ch=1)
    assert (network.info.scale, network.info.num_in_ch) == (3, 1)
    assert {"imdn", "imdn_rtc", "plain_m"} <= set(list_models())
    assert "imdn_rtc_x2" in list_models(pretrained=True)
    assert imdn_kd.load_model("imdn_rtc_x2").network.info.scale == 2
    assert imdn_kd.losses is losses
