"""The plug-in of BasicSR: what it registers, and distillation in BasicSR's own training loop."""

from __future__ import annotations

import copy
import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
import yaml
from torch.nn import functional as F  # noqa: N812
from torch.nn.parallel import DistributedDataParallel

from imdn_kd.errors import InputError
from imdn_kd.inference.model_file import load_model
from imdn_kd.integrations import basicsr_networks
from imdn_kd.registry import ARCHS, LOSSES
from tests.basicsr_compat import import_basicsr, needs_basicsr
from tests.integrations.basicsr_project import (
    OBJECTIVES,
    STUDENT,
    content,
    make_project,
    options_of_basicsr,
    run_pipeline,
    weights,
)
from tests.refused import refused

pytestmark = needs_basicsr


@pytest.fixture(scope="module")
def registries():
    """BasicSR's registries, which are afterwards as they were: other tests look at what BasicSR alone registers."""
    for name in ("archs", "losses", "models"):
        import_basicsr(f"basicsr.{name}")
    theirs = import_basicsr("basicsr.utils.registry")
    found = {kind: getattr(theirs, f"{kind}_REGISTRY") for kind in ("ARCH", "LOSS", "MODEL")}
    before = {kind: dict(registry._obj_map) for kind, registry in found.items()}
    yield found
    for kind, registry in found.items():
        registry._obj_map = before[kind]


@pytest.fixture(scope="module")
def plugin(registries):
    loaded = sys.modules.get("imdn_kd.integrations.basicsr")
    return importlib.reload(loaded) if loaded else importlib.import_module("imdn_kd.integrations.basicsr")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("project"))


def message_of(call):
    with pytest.raises(InputError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is registered.


@pytest.mark.parametrize("name", list(ARCHS))
def test_a_basicsr_project_can_build_our_networks(plugin, name):
    network = import_basicsr("basicsr.archs").build_network({"type": name})
    expected = ARCHS.build({"type": name})
    assert type(network) is type(expected)
    assert network.spec == expected.spec


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_basicsr_project_can_build_our_losses(plugin, name):
    build = import_basicsr("basicsr.losses").build_loss
    loss = build({"type": name, "loss_weight": 0.25, "reduction": "mean"})
    images = [torch.rand((2, 3, 16, 16), generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    given = images if name == "ContrastiveLoss" else images[:2]
    torch.testing.assert_close(loss(*given), 0.25 * LOSSES.build({"type": name})(*given))
    # Loss functions have no weights, so that checkpoints of models with them stay as they are.
    assert not loss.state_dict()


def test_options_of_networks_and_losses_are_handed_on(plugin):
    network = import_basicsr("basicsr.archs").build_network(STUDENT)
    assert network.spec["num_feat"] == 8
    loss = import_basicsr("basicsr.losses").build_loss({"type": "FFTLoss", "norm": "ortho"})
    assert loss.loss.norm == "ortho"


@pytest.mark.parametrize("name", ["L1Loss", "MSELoss", "CharbonnierLoss"])
def test_what_basicsr_has_itself_stays_its_own(plugin, name):
    loss = import_basicsr("basicsr.losses").build_loss({"type": name, "reduction": "sum"})
    assert type(loss) is getattr(import_basicsr("basicsr.losses.basic_loss"), name)


def test_what_a_project_has_registered_before_stays_its_own(plugin, registries, monkeypatch):
    class IMDN(torch.nn.Module):
        pass

    monkeypatch.setitem(registries["ARCH"]._obj_map, "IMDN", IMDN)
    importlib.reload(plugin)
    assert type(import_basicsr("basicsr.archs").build_network({"type": "IMDN"})) is IMDN


def test_importing_it_again_changes_nothing(plugin, registries):
    before = {kind: dict(registry._obj_map) for kind, registry in registries.items()}
    importlib.reload(plugin)
    assert {kind: dict(registry._obj_map) for kind, registry in registries.items()} == before
    assert before["MODEL"]["DistillModel"].__name__ == "DistillModel"


def test_our_networks_do_not_come_back_as_networks_of_basicsr(plugin):
    assert basicsr_networks.find("EDSR") is not None
    assert not set(basicsr_networks.names()) & set(ARCHS)
    assert all(basicsr_networks.find(name) is None for name in ARCHS)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (
            "archs",
            {"type": "IMDN", "num_feet": 8},
            "'IMDN' has no option 'num_feet'; it takes: num_in_ch, num_feat",
        ),
        ("archs", {"type": "IMDN", "upscale": 0}, "upscale"),
        ("losses", {"type": "FFTLoss", "norms": "ortho"}, "the loss 'FFTLoss' has no option 'norms'; it takes: norm"),
        ("losses", {"type": "FFTLoss", "reduction": "sum"}, "reduction of FFTLoss is 'sum', but there is 'mean' alone"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(plugin, kind, options, words):
    build = {"archs": "build_network", "losses": "build_loss"}[kind]
    assert words in message_of(lambda: getattr(import_basicsr(f"basicsr.{kind}"), build)(options))


@pytest.mark.processes
def test_without_basicsr_importing_it_is_one_line():
    code = "import sys; sys.modules['basicsr'] = None; import imdn_kd.integrations.basicsr"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].startswith("imdn_kd.errors.InputError: networks of BasicSR need its package ")


# Training in BasicSR's pipeline.


@pytest.fixture(scope="module")
def runs(project, tmp_path_factory):
    """Folders and outputs of a run of 20 updates, and of one that goes on from its tenth."""
    whole, resumed = project, tmp_path_factory.mktemp("resumed") / "project"
    first = run_pipeline(whole)
    shutil.copytree(whole, resumed)
    for path in (resumed / "experiments" / "run").rglob("*_20.*"):
        path.unlink()
    state = resumed / "experiments" / "run" / "training_states" / "10.state"
    second = run_pipeline(resumed, {"path": {"resume_state": str(state)}})
    return (whole, first), (resumed, second)


@pytest.mark.processes
def test_all_losses_are_logged_by_name(runs):
    (_, printed), _ = runs
    lines = [line for line in printed.splitlines() if "l_pix: " in line]
    assert len(lines) == 4
    for line in lines:
        found = {name: float(value) for name, value in re.findall(r"(\w+): (-?\d\.\d{4}e[+-]\d\d)", line)}
        assert {"l_pix", *OBJECTIVES, "d_score"} <= set(found)
        assert min(found[name] for name in ("l_pix", "l_kd", "l_pair", "l_mimic")) > 0
    assert "# psnr: " in printed


@pytest.mark.processes
def test_what_is_saved_is_the_bare_student(runs):
    (folder, _), _ = runs
    saved = weights(folder, "net_g", 20)
    assert set(saved) == {"params", "params_ema"}
    for state in saved.values():
        ARCHS.build(STUDENT).load_state_dict(state, strict=True)
    assert any(not torch.equal(saved["params"][key], saved["params_ema"][key]) for key in saved["params"])


@pytest.mark.processes
@pytest.mark.parametrize(("label", "count"), [("net_g", None), ("net_a", 4), ("net_d", None)])
def test_student_adapters_and_critic_have_learned(runs, label, count):
    (folder, _), _ = runs
    before, after = (weights(folder, label, step)["params"] for step in (10, 20))
    assert count is None or len(after) == count
    assert sum(not torch.equal(before[key], after[key]) for key in after) > 0.8 * len(after)


@pytest.mark.processes
@pytest.mark.parametrize("label", ["net_g", "net_a", "net_d"])
def test_a_run_that_goes_on_arrives_where_the_whole_one_does(runs, label):
    (whole, _), (resumed, printed) = runs
    assert "Resuming training from epoch: 9, iter: 10." in printed
    expected, found = (weights(folder, label, 20) for folder in (whole, resumed))
    assert set(found) == set(expected)
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-5)


# The model itself.


def build(project, changes=None, kind=None):
    """The model, on weights that do not depend on who asks."""
    opt = options_of_basicsr(project, changes)
    torch.manual_seed(0)
    if kind is not None:
        return kind(copy.deepcopy(opt))
    return import_basicsr("basicsr.models").build_model(opt)


def batch(images=slice(None)):
    generator = torch.Generator().manual_seed(3)
    gt = torch.rand((4, 3, 32, 32), generator=generator)
    return {"lq": F.avg_pool2d(gt, 2)[images], "gt": gt[images]}


def update(model, count, data):
    for number in range(1, count + 1):
        model.update_learning_rate(number)
        model.feed_data(data)
        model.optimize_parameters(number)


def test_an_iteration_is_that_of_a_plain_loop(plugin, project):
    only = {"l_pair": None, "l_mimic": None, "l_gan": None, "l_kd": {"start_iter": 1}}
    model = build(project, {"distill": {"objectives": only}, "train": {"ema_decay": 0}})
    student = copy.deepcopy(model.net_g)
    teacher = load_model(project / "teacher.safetensors").network.eval()
    optimizer = torch.optim.Adam(student.parameters(), lr=2e-3, betas=(0.9, 0.99), eps=1e-4)
    data = batch()
    for number in range(1, 4):
        update_losses = [F.l1_loss(student(data["lq"]), data["gt"])]
        if number > 1:  # `start_iter` counts updates from 0
            with torch.no_grad():
                goal = teacher(data["lq"])
            update_losses.append(0.5 * F.l1_loss(student(data["lq"]), goal))
        optimizer.zero_grad()
        sum(update_losses).backward()
        optimizer.step()
        model.feed_data(data)
        model.optimize_parameters(number)
        logged = list(model.get_current_log().values())
        assert logged == pytest.approx([loss.item() for loss in update_losses], rel=1e-4)
    assert list(model.get_current_log()) == ["l_pix", "l_kd"]
    for key, value in student.state_dict().items():
        torch.testing.assert_close(model.net_g.state_dict()[key], value, rtol=1e-4, atol=1e-6)


def test_the_teacher_stays_as_it_is(plugin, project):
    model = build(project)
    update(model, 2, batch())
    (teacher,) = model._distiller.teachers
    assert not any(module.training for module in teacher.modules())
    expected = load_model(project / "teacher.safetensors").network.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in teacher.network.state_dict().items())


def test_losses_between_pixels_may_be_left_out_or_be_ours(plugin, project):
    model = build(project, {"train": {"pixel_opt": None}})
    update(model, 1, batch())
    assert set(model.get_current_log()) == {*OBJECTIVES, "d_score"}
    model = build(project, {"train": {"fft_opt": {"type": "FFTLoss", "loss_weight": 0.05}}})
    update(model, 1, batch())
    assert list(model.get_current_log())[:2] == ["l_pix", "l_fft"]


def test_a_student_and_several_teachers_of_basicsr(plugin, project, tmp_path):
    spec = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 2}
    torch.save({"params": ARCHS.build(spec).state_dict()}, tmp_path / "edsr.pth")
    teachers = [{"weights": str(project / "teacher.safetensors")}, {**spec, "weights": str(tmp_path / "edsr.pth")}]
    model = build(project, {"network_g": spec, "network_t": teachers})
    update(model, 1, batch())
    assert set(model.get_current_log()) == {"l_pix", *OBJECTIVES, "d_score"}


def test_training_starts_from_weights(plugin, project, tmp_path):
    torch.manual_seed(7)
    states = {key: ARCHS.build(STUDENT).state_dict() for key in ("params", "params_ema")}
    torch.save(states, tmp_path / "start.pth")
    model = build(project, {"path": {"pretrain_network_g": str(tmp_path / "start.pth")}})
    for network, key in ((model.net_g, "params"), (model.net_g_ema, "params_ema")):
        assert all(torch.equal(value, states[key][name]) for name, value in network.state_dict().items())


def test_tests_of_basicsr_need_no_teacher(plugin, project):
    model = build(project, {"is_train": False, "network_t": None, "distill": None})
    model.feed_data(batch())
    model.test()
    assert model.output.shape == (4, 3, 32, 32)


def test_adapters_and_critic_have_optimisers_and_rates_of_their_own(plugin, project):
    def rates(model):
        return [optimizer.param_groups[0]["lr"] for optimizer in model.optimizers]

    model = build(project)
    assert rates(model) == [2e-3, 2e-3, 1e-3]
    model = build(project, {"train": {"optim_a": {"type": "Adam", "lr": 5e-3}, "optim_d": None}})
    assert rates(model) == [2e-3, 5e-3, 1e-4]
    update(model, 6, batch())  # there is a milestone at 5
    assert rates(model) == pytest.approx([1e-3, 2.5e-3, 5e-5])


@pytest.mark.parametrize(
    ("changes", "code", "place"),
    [
        ({"network_t": None}, "options.missing", "network_t"),
        ({"distill": None}, "options.missing", "distill"),
        ({"distill": {"objectivs": {}}}, "options.unknown-key", "distill"),
        ({"distill": {"cache": True}}, "options.conflict", "distill.cache"),
        (
            {"distill": {"objectives": {"l_kd": {"loss_weihgt": 1}}}},
            "options.unknown-key",
            "distill: objectives.l_kd",
        ),
        (
            {"distill": {"objectives": {"l_pair": {"taps": ["block.9"]}}}},
            "hooks.unknown-feature",
            "distill: objectives.l_pair",
        ),
        ({"network_t": {"weights": "no.pth"}}, "zoo.not-found", "network_t: no.pth"),
        ({"network_t": {"self_ensembel": True}}, "options.unknown-key", "network_t"),
        ({"network_t": [{"weight": 1.0}]}, "options.missing", "network_t.0: weights"),
        ({"network_g": {"upscale": 4}}, "model.scale-mismatch", "network_g"),
        ({"network_g": {"num_feet": 8}}, "registry.unknown-option", "network_g"),
        ({"num_gpu": 2}, "options.conflict", "num_gpu"),
        ({"train": {"perceptual_opt": {"type": "PerceptualLoss"}}}, "options.conflict", "train.perceptual_opt"),
        ({"train": {"reparam": {"width": 2}}}, "options.conflict", "train.reparam"),
        ({"train": {"optim_g": {"type": "Muon", "lr": 1e-2}}}, "options.conflict", "train.optim_g.type"),
        ({"train": {"scheduler_d": {"type": "MultiStepLR"}}}, "options.conflict", "train.scheduler_d"),
        ({"datasets": {"train": {"gt_size": None}}}, "options.missing", "datasets.train.gt_size"),
    ],
)
def test_options_of_the_model_that_cannot_be_used_are_refused(plugin, project, changes, code, place):
    with refused(code) as caught:
        build(project, changes)
    (line,) = caught.value.lines
    assert line.startswith(f"{place}: ")


def test_sections_may_be_the_ordered_dictionaries_of_basicsr(plugin, project):
    parser = import_basicsr("basicsr.utils.options")
    loader, _ = parser.ordered_yaml()
    opt = yaml.load(yaml.safe_dump(content(project)), Loader=loader)
    assert type(opt["distill"]["objectives"]) is not dict
    opt = {**opt, **{key: options_of_basicsr(project)[key] for key in ("dist", "rank", "world_size", "is_train")}}
    model = import_basicsr("basicsr.models").build_model(opt)
    update(model, 1, batch())


def test_a_network_of_the_project_with_a_name_of_ours_is_not_mistaken(plugin, registries, project, monkeypatch):
    class IMDN(torch.nn.Module):
        def forward(self, image):
            return F.interpolate(image, scale_factor=2)

    monkeypatch.setitem(registries["ARCH"]._obj_map, "IMDN", IMDN)
    with refused("registry.name-taken"):
        build(project)


def test_the_state_of_another_run_is_refused(plugin, project):
    model = build(project)
    only = {"l_pair": None, "l_mimic": None, "l_gan": None}
    other = build(project, {"distill": {"objectives": only}})
    state = {"iter": 1, "optimizers": [each.state_dict() for each in other.optimizers], "schedulers": []}
    with refused("resume.changed"):
        model.resume_training(state)


def one_of_two(rank, kind, project, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        torch.manual_seed(rank)

        class OnCPU(kind):
            def model_to_device(self, net):  # BasicSR's asks for GPUs
                return DistributedDataParallel(net)

        changes = {"dist": True, "rank": rank, "world_size": 2, "path": {"pretrain_network_g": f"{folder}/start.pth"}}
        opt = options_of_basicsr(project, changes)
        model = OnCPU(opt)
        update(model, 3, batch(slice(2 * rank, 2 * rank + 2)))
        networks = {name: module.state_dict() for name, module in model._others.items()}
        networks["student"] = model.get_bare_model(model.net_g).state_dict()
        torch.save((networks, model.get_current_log()), f"{folder}/{rank}.pth")
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.processes
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_two_processes_learn_as_one_with_both_batches(plugin, project, tmp_path):
    torch.save({"params": build(project).net_g.state_dict()}, tmp_path / "start.pth")
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=one_of_two, args=(rank, plugin.DistillModel, project, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    model = build(project, {"path": {"pretrain_network_g": str(tmp_path / "start.pth")}})
    update(model, 3, batch())
    (first, log), (second, _) = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    expected = {name: module.state_dict() for name, module in model._others.items()}
    expected["student"] = model.net_g.state_dict()
    assert set(first) == {"student", "adapters", "critic"}
    for name, state in expected.items():
        for key, value in state.items():
            assert torch.equal(first[name][key], second[name][key]), (name, key)
            torch.testing.assert_close(first[name][key], value, rtol=1e-3, atol=1e-5)
    assert log == pytest.approx(model.get_current_log(), rel=1e-3, abs=1e-5)
