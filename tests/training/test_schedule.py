import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from imdn_kd.training.optim import UNFIT, check_optimizer, make_optimizer, optimizers, restore, set_lrs
from imdn_kd.training.schedule import constant, cosine_restarts, multistep, stable_decay, warm_up
from tests.basicsr_compat import import_basicsr
from tests.refused import refused

LR = 2e-4


def parameters():
    return list(nn.Conv2d(3, 4, 3).parameters())


def rates(factor, updates, lr=LR):
    """The rates with which the updates are made."""
    optimizer = make_optimizer([nn.Parameter(torch.zeros(1))], "SGD", lr=lr)
    made = []
    for step in range(updates):
        set_lrs(optimizer, factor(step))
        made.append(optimizer.param_groups[0]["lr"])
    return made


def rates_of_basicsr(scheduler, options, updates, warmup_iter=-1, lr=LR):
    """The same, with BasicSR's own classes and its own rule of when they step."""
    model = import_basicsr("basicsr.models.base_model").BaseModel({"num_gpu": 0, "is_train": True})
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=lr)
    model.optimizers = [optimizer]
    model.schedulers = [getattr(import_basicsr("basicsr.models.lr_scheduler"), scheduler)(optimizer, **options)]
    made = []
    for iteration in range(1, updates + 1):
        model.update_learning_rate(iteration, warmup_iter=warmup_iter)
        made.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return made


MULTISTEP = {
    "published": {"milestones": [20, 40, 40, 45], "gamma": 0.5},
    "none": {"milestones": []},
    "from the beginning": {"milestones": [0, 3], "gamma": 0.3},
    "restarts": {"milestones": [5, 10, 25, 30], "gamma": 0.5, "restarts": [0, 20, 40], "restart_weights": [1, 0.5, 2]},
    "milestone at a restart": {"milestones": [10, 20], "restarts": [0, 20], "restart_weights": [1, 0.5]},
    "first restart later": {"milestones": [4, 12], "gamma": 0.7, "restarts": [8], "restart_weights": [0.9]},
    "no restart": {"milestones": [4], "restarts": [], "restart_weights": []},
}

COSINE = {
    "one": {"periods": [50]},
    "many": {"periods": [10, 20, 20], "restart_weights": [1, 0.5, 0.25], "eta_min": 1e-7},
    "short": {"periods": [1, 1, 48], "restart_weights": [1, 1, 3], "eta_min": 1e-5},
}


def cosine(periods, restart_weights=(1,), eta_min=0.0):
    return cosine_restarts(periods, restart_weights, eta_min / LR)


@pytest.mark.parametrize("options", MULTISTEP.values(), ids=MULTISTEP)
def test_multistep_rates_are_those_of_basicsr(options):
    ours = rates(multistep(**options), 50)

    assert ours == pytest.approx(rates_of_basicsr("MultiStepRestartLR", options, 50), rel=1e-12)


@pytest.mark.parametrize("warmup_iter", [-1, 0, 1, 2, 7, 15, 60])
@pytest.mark.parametrize("options", COSINE.values(), ids=COSINE)
def test_cosine_rates_are_those_of_basicsr_with_and_without_warm_up(options, warmup_iter):
    ours = rates(warm_up(cosine(**options), warmup_iter), 50)
    theirs = rates_of_basicsr("CosineAnnealingRestartLR", options, 50, warmup_iter)

    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-18)


def test_multistep_rates_warm_up_as_in_basicsr_and_then_reach_the_base_rate():
    options = {"milestones": [20, 30], "gamma": 0.5, "restarts": [0, 40], "restart_weights": [1, 1]}
    ours = rates(warm_up(multistep(**options), 8), 50)
    theirs = rates_of_basicsr("MultiStepRestartLR", options, 50, 8)

    assert ours[:7] == pytest.approx([LR * i / 8 for i in range(1, 8)])
    assert ours[:7] == pytest.approx(theirs[:7], rel=1e-12)
    assert ours[7:20] == pytest.approx([LR] * 13)
    assert ours[40:] == pytest.approx(theirs[40:], rel=1e-12)
    # Theirs goes on from the last rate of the warm-up, 7 / 8 of the base rate, until it restarts.
    assert theirs[7:40] == pytest.approx([rate * 7 / 8 for rate in ours[7:40]], rel=1e-12)


def test_multistep_rates_are_those_of_pytorch():
    other = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(other, [3, 9, 9, 20], 0.4)
    theirs = []
    for _ in range(30):
        theirs.append(other.param_groups[0]["lr"])
        other.step()
        scheduler.step()

    assert rates(multistep([3, 9, 9, 20], 0.4), 30) == pytest.approx(theirs, rel=1e-12)


def test_after_its_last_period_a_cosine_stays_at_its_end():
    factor = cosine_restarts([4, 6], [1, 0.5], 0.1)

    assert [factor(step) for step in (0, 4, 10)] == pytest.approx([1, 0.1, 0.1])
    assert factor(5) == pytest.approx(0.1 + 0.5 * 0.9 * (1 + math.cos(math.pi / 6)) / 2)
    assert [factor(step) for step in (11, 12, 10**6)] == pytest.approx([0.1] * 3)


def test_a_constant_rate_stays_and_can_warm_up():
    factor = warm_up(constant(), 4)

    assert [constant()(step) for step in (0, 1, 10**6)] == [1, 1, 1]
    assert [factor(step) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_each_group_keeps_its_own_base_rate():
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1.0, 0.1)]
    optimizer = torch.optim.SGD(groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    for _ in range(2):
        set_lrs(optimizer, 0.5)

    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.5, 0.05])


def test_a_restored_optimiser_goes_on_with_the_settings_of_now():
    def after_updates(optimizer, weight, count):
        for _ in range(count):
            weight.grad = weight.detach().clone()
            optimizer.step()
        return weight.detach().clone()

    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    before = make_optimizer([first], "Adam", lr=0.1, betas=[0.5, 0.9])
    after_updates(before, first, 3)
    second.data.copy_(first.data)
    same = make_optimizer([second], "Adam", lr=0.1, betas=[0.5, 0.9])
    restore(same, copy.deepcopy(before.state_dict()))
    assert torch.equal(after_updates(before, first, 2), after_updates(same, second, 2))

    other = make_optimizer([second], "Adam", lr=0.2, betas=[0.5, 0.99])
    restore(other, before.state_dict())
    (group,) = other.param_groups
    assert (group["lr"], group["initial_lr"], group["betas"]) == (0.2, 0.2, (0.5, 0.99))


@given(
    milestones=st.lists(st.integers(0, 60), max_size=5).map(sorted),
    restarts=st.lists(st.integers(0, 60), max_size=4, unique=True).map(sorted),
    gamma=st.floats(0.1, 1.5),
)
def test_any_multistep_course_is_that_of_basicsr(milestones, restarts, gamma):
    weights = [1 + 0.1 * index for index in range(len(restarts))]
    factor = multistep(milestones, gamma, restarts, weights)
    options = {"milestones": milestones, "gamma": gamma, "restarts": restarts, "restart_weights": weights}
    theirs = rates_of_basicsr("MultiStepRestartLR", options, 65, lr=1.0)

    assert [factor(step) for step in range(65)] == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: multistep([5, 3]), "milestones are 5, 3"),
        (lambda: multistep([-1]), "milestones"),
        (lambda: multistep([1], 0.0), "gamma"),
        (lambda: multistep([1], -0.5), "gamma"),
        (lambda: multistep([1], math.nan), "gamma"),
        (lambda: multistep([1], 0.1, (0, 5)), "2 restarts and 1 restart_weights"),
        (lambda: multistep([1], 0.1, (5, 0), (1, 1)), "restarts"),
        (lambda: multistep([1], 0.1, (5, 5), (1, 1)), "once"),
        (lambda: multistep([1], 0.1, (0,), (-1,)), "restart_weights"),
        (lambda: cosine_restarts([]), "periods"),
        (lambda: cosine_restarts([0]), "periods"),
        (lambda: cosine_restarts([5, -5], (1, 1)), "periods"),
        (lambda: cosine_restarts([5, 5]), "2 periods and 1 restart_weights"),
        (lambda: cosine_restarts([5], (0,)), "restart_weights"),
        (lambda: cosine_restarts([5], (1,), 1.5), "lowest rate"),
        (lambda: cosine_restarts([5], (1,), -0.1), "lowest rate"),
        (lambda: cosine_restarts([5], (1,), math.nan), "lowest rate"),
    ],
)
def test_schedules_that_cannot_be_are_refused(make, word):
    with refused("schedule.range") as caught:
        make()
    (line,) = caught.value.lines
    assert word in line


@pytest.mark.parametrize("name", list(optimizers()))
def test_every_optimiser_can_be_used(name):
    check_optimizer(name, {"lr": 1e-3})
    network = nn.Conv2d(3, 4, 3)
    optimizer = make_optimizer(network.parameters(), name, lr=1e-3)
    before = network.weight.detach().clone()
    network(torch.rand(1, 3, 5, 5)).sum().backward()
    optimizer.step()

    assert type(optimizer) is optimizers()[name]
    assert not torch.equal(network.weight, before)
    assert torch.isfinite(network.weight).all()


def test_the_common_optimisers_are_among_them():
    assert {"Adam", "AdamW", "SGD", "RMSprop", "Adagrad"} <= set(optimizers())
    assert set(UNFIT).isdisjoint(optimizers())


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "Adagrad"])
def test_it_is_fused_where_it_can_be_and_makes_the_same_iterations(name):
    weights = []
    for options in ({}, {"foreach": False}, {"fused": False}):
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3)
        optimizer = make_optimizer(network.parameters(), name, lr=1e-2, **options)
        assert bool(optimizer.param_groups[0]["fused"]) == (not options)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.ones(1, 3, 5, 5)).square().sum().backward()
            optimizer.step()
        weights.append(network.weight.detach())

    torch.testing.assert_close(weights[0], weights[1], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(weights[0], weights[2], rtol=1e-5, atol=1e-7)


def test_it_is_not_fused_where_the_device_refuses(monkeypatch):
    def refuse(self, *args, **keywords):
        if self.param_groups[0]["fused"]:
            raise RuntimeError("no fused kernel for this device")

    monkeypatch.setattr(torch.optim.Adam, "step", refuse)

    assert not make_optimizer(parameters(), "Adam", lr=1e-3).param_groups[0]["fused"]
    with refused("optimizer.bad-value"):
        make_optimizer(parameters(), "Adam", lr=1e-3, fused=True)


def test_options_reach_the_optimiser_and_lists_become_tuples():
    optimizer = make_optimizer(iter(parameters()), "Adamax", lr=LR, betas=[0.9, 0.99], weight_decay=0.1)
    (group,) = optimizer.param_groups

    assert group["betas"] == (0.9, 0.99)
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (LR, 0.1, 2)


def test_making_one_leaves_weights_and_gradients_as_they_were():
    network = nn.Conv2d(3, 4, 3)
    before = network.weight.detach().clone()
    optimizer = make_optimizer(network.parameters(), "Adam", lr=0.1)

    assert torch.equal(network.weight, before)
    assert network.weight.grad is None
    assert not optimizer.state


def test_a_network_without_parameters_is_refused():
    with refused("optimizer.no-parameters"):
        make_optimizer([], "Adam", lr=LR)


@pytest.mark.parametrize(
    ("name", "options", "code"),
    [
        ("Adm", {}, "optimizer.unknown"),
        ("adamw", {}, "optimizer.unknown"),
        ("Lion", {}, "optimizer.unknown"),
        ("Muon", {"momentum": 1}, "optimizer.bad-value"),
        ("Optimizer", {}, "optimizer.unknown"),
        ("lr_scheduler", {}, "optimizer.unknown"),
        ("LBFGS", {}, "optimizer.unfit"),
        ("SparseAdam", {}, "optimizer.unfit"),
        ("Adam", {"lrr": 1}, "optimizer.unknown-option"),
        ("Adam", {"wd": 1}, "optimizer.unknown-option"),
        ("Adam", {"params": []}, "optimizer.unknown-option"),
        ("Adam", {"lr": -1}, "optimizer.bad-value"),
        ("Adam", {"lr": "2e-4x"}, "optimizer.bad-value"),
        ("Adam", {"lr": math.inf}, "optimizer.bad-value"),
        ("Adam", {"betas": [0.9, 1.5]}, "optimizer.bad-value"),
        ("Adam", {"betas": 0.9}, "optimizer.bad-value"),
        ("Adam", {"weight_decay": math.nan}, "optimizer.bad-value"),
        ("Adam", {"differentiable": True}, "optimizer.bad-value"),
        ("Adam", {"fused": True, "foreach": True}, "optimizer.bad-value"),
        ("SGD", {"lr": 0.1, "nesterov": True}, "optimizer.bad-value"),
    ],
)
def test_optimisers_that_cannot_be_used_are_refused_in_one_line(name, options, code):
    with refused(code) as caught:
        check_optimizer(name, options)
    assert "\n" not in str(caught.value)
    with refused(code):
        make_optimizer(parameters(), name, **options)


def test_whole_numbers_among_betas_are_numbers_too():
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], "Adam", lr=1e-3, betas=[0, 0.9])
    assert optimizer.param_groups[0]["betas"] == (0.0, 0.9)


@given(
    total=st.integers(1, 500),
    share=st.floats(0, 1),
    weight=st.floats(0.1, 2),
    lowest=st.floats(0, 0.1),
)
def test_a_stable_rate_decays_to_its_lowest_value_in_the_last_iteration(total, share, weight, lowest):
    """The formula of https://arxiv.org/abs/2405.18392, whose n counts iterations from 1."""
    decay = round(share * total)
    factor = stable_decay(total, decay, weight, lowest)
    made = [factor(step) for step in range(total)]

    assert made[: total - decay] == [weight] * (total - decay)
    for n in range(total - decay + 1, total + 1):
        part = 1 - math.sqrt((n - (total - decay)) / decay)
        assert made[n - 1] == pytest.approx(lowest + (weight - lowest) * part, abs=1e-12)
    assert made[-1] == pytest.approx(lowest if decay else weight)
    assert factor(total + 100) == made[-1]


@pytest.mark.parametrize("values", [(10, 11), (10, -1), (10, 5, 0.0), (10, 5, 0.5, 0.6), (10, 5, 1.0, -0.1)])
def test_a_decay_that_cannot_be_is_refused(values):
    with refused("schedule.range"):
        stable_decay(*values)
