"""Optimizer steps, with the loss scaling of fp16, which needs no GPU."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch

from imdn_kd.config.options import check_options
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT
from imdn_kd.distill.schema import DistillOptions
from imdn_kd.distill.teacher import Teacher
from imdn_kd.registry import ARCHS
from imdn_kd.training.optim import OptimState
from imdn_kd.training.schedule import constant
from imdn_kd.training.update import TrainStep

OBJECTIVES = {
    "l_kd": {"type": "L1Loss"},
    "l_mimic": {"type": "MimicLoss", "taps": ["block.1"]},
    "l_adv": {"type": "HolisticTerm", "critic": {"num_feat": 4, "stages": 2}, "n_critic": 2},
}


def accelerator(scaler=None):
    return SimpleNamespace(
        process_index=0,
        num_processes=1,
        scaler=scaler,
        no_sync=lambda _: contextlib.nullcontext(),
        backward=lambda loss: (loss if scaler is None else scaler.scale(loss)).backward(),
        unscale_gradients=lambda optimizer: None if scaler is None else scaler.unscale_(optimizer),
    )


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"lq": torch.rand(2, 3, 8, 8, generator=generator), "gt": torch.rand(2, 3, 16, 16, generator=generator)}


def parts(scaler=None, clip=None):
    """An updater and the learners, always with the same weights."""
    torch.manual_seed(0)
    student, teacher = (ARCHS.build({"type": "IMDN", "upscale": 2, "num_feat": n, "num_block": 1}) for n in (4, 8))
    options = check_options({"objectives": OBJECTIVES}, DistillOptions, "test")
    distiller = build_distiller(options, student, [Teacher(teacher)], total=10, sides=[8])
    speaker = accelerator(scaler)
    modules = {STUDENT: student, **distiller.trainable_modules()}
    optimizer = ("SGD", {"lr": 0.1})
    learners = {name: OptimState(module, optimizer, constant(), speaker) for name, module in modules.items()}
    return TrainStep(distiller, learners, speaker, seed=0, grad_clip=clip), learners


def weights(learners):
    return {
        f"{name}.{key}": v.clone() for name, each in learners.items() for key, v in each.module.state_dict().items()
    }


@pytest.mark.parametrize("clip", [None, 0.05])
def test_the_scale_of_fp16_changes_no_step_of_anyone(clip):
    plain, learners = parts(clip=clip)
    scaled, others = parts(torch.amp.GradScaler("cpu", init_scale=4096.0), clip=clip)
    before = weights(learners)
    for step in range(3):
        assert plain.run([batch(step)], step).taken == (STUDENT, ADAPTERS, CRITIC, CRITIC)
        scaled.run([batch(step)], step)
    after, other = weights(learners), weights(others)
    assert {key.split(".")[0] for key in after if not torch.equal(after[key], before[key])} == set(learners)
    for key, value in after.items():
        torch.testing.assert_close(other[key], value, rtol=1e-4, atol=1e-6)


def test_an_overflow_lowers_the_scale_and_nobody_takes_a_step():
    scaler = torch.amp.GradScaler("cpu", init_scale=3e38)
    updater, learners = parts(scaler)
    updater._distiller.terms[0].loss.register_forward_hook(lambda *given: given[2] * 100)
    before = weights(learners)
    update = updater.run([batch()], 0)
    assert (update.taken, update.failed) == ((), (STUDENT, ADAPTERS))
    assert scaler.get_scale() < 3e38
    assert all(torch.equal(value, before[key]) for key, value in weights(learners).items())


def test_each_turn_begins_without_gradients():
    """The second step of the critic is by its own gradient, not by that of the first one too."""
    updater, learners = parts()
    critic, seen = learners[CRITIC], []
    step = critic.take_step

    def take_step():
        seen.append([parameter.grad.clone() for parameter in critic.module.parameters()])
        critic.module.load_state_dict(first)
        step()

    first = {key: value.clone() for key, value in critic.module.state_dict().items()}
    critic.take_step = take_step
    critic.optimizer.param_groups[0]["initial_lr"] = 0.0
    updater.run([batch()], 0)
    sizes = [sum(float(gradient.abs().sum()) for gradient in each) for each in seen]
    assert len(sizes) == 2
    # The same but for the random point of the penalty.
    assert sizes[1] == pytest.approx(sizes[0], rel=0.2)


def test_where_the_critic_fails_the_student_has_taken_its_step():
    updater, learners = parts()
    learners[CRITIC].module.score.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = weights(learners)
    update = updater.run([batch()], 0)
    assert (update.taken, update.failed) == ((STUDENT, ADAPTERS), (CRITIC,))
    changed = {key.split(".")[0] for key, value in weights(learners).items() if not torch.equal(value, before[key])}
    assert changed == {STUDENT, ADAPTERS}


def test_several_batches_are_as_one_of_all_of_them():
    together, learners = parts()
    apart, others = parts()
    both = {key: torch.cat([batch(0)[key], batch(1)[key]]) for key in batch()}
    for updater, batches in ((together, [both]), (apart, [batch(0), batch(1)])):
        optim_step, *_ = updater._distiller.optim_steps(0)  # without the critic, whose random numbers would be others
        updater._distiller.optim_steps = lambda step, optim_step=optim_step: [optim_step]
        updater.run(batches, 0)
    for key, value in weights(learners).items():
        torch.testing.assert_close(weights(others)[key], value, rtol=1e-4, atol=1e-6)


def test_the_norms_of_single_gradients_are_those_of_the_whole_ones():
    updater, learners = parts()
    update = updater.run([batch(1), batch()], 0, norms=True)
    assert set(update.norms) == {"l_kd", "l_mimic", "l_adv"}

    fresh, learners = parts()
    context = fresh._distiller.run_student(batch())
    losses = fresh._distiller.losses(context, 0)
    for name, loss in losses.items():
        learners[STUDENT].module.zero_grad()
        loss.backward(retain_graph=True)
        gradients = [p.grad for p in learners[STUDENT].module.parameters() if p.grad is not None]
        total = float(torch.sqrt(sum(gradient.double().square().sum() for gradient in gradients)))
        assert update.norms[name] == pytest.approx(total, rel=1e-5)
