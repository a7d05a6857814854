"""The first pass over an option file: what can be told without opening anything that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT
from imdn_kd.errors import Problems
from imdn_kd.inference.device import choose_dtype
from imdn_kd.training.log import missing_trackers
from imdn_kd.training.optim import check_optimizer
from imdn_kd.training.schedule import Factor, constant, cosine_restarts, multistep, stable_decay, warm_up
from imdn_kd.training.schema import CosineOptions, MultiStepOptions, Scheduler, StableDecayOptions, TrainOptions


def validate_options(options: TrainOptions, device: torch.device, problems: Problems) -> dict[str, Factor]:
    """Check optimisers, schedules, precision, data set names and trackers.

    Args:
        options: of the run.
        device: where it is to run.
        problems: takes what is wrong.

    Returns:
        The learning rate schedule of each trainable module, by name; empty if one of them is wrong.
    """
    train = options.train
    for key in ("optim_g", "optim_a", "optim_d"):
        optim = getattr(train, key)
        if optim is not None:
            with problems.at(f"train.{key}"):
                check_optimizer(optim.type, optim.settings())
    with problems.at("train.precision"):
        choose_dtype(train.precision, device)
    problems.add((f"logger.{line}" for line in missing_trackers(options.logger)), code="train.tracker-missing")
    problems.add(_names(options), code="train.data-set-names")
    problems.add(_selected(options), code="train.select-on")
    student = problems.of("train.scheduler", lambda: _factor(train.scheduler, train.optim_g.lr, train.total_iter))
    critic = problems.of("train.scheduler_d", lambda: _factor(train.scheduler_d, train.optim_d.lr, train.total_iter))
    if student is None or critic is None:
        return {}
    student = warm_up(student, train.warmup_iter)
    return {STUDENT: student, ADAPTERS: student, CRITIC: critic}


def _names(options: TrainOptions) -> Iterator[str]:
    phases: tuple[Literal["val", "test"], ...] = ("val", "test")
    for phase in phases:
        first: dict[str, str] = {}
        for key, dataset in options.datasets.named(phase).items():
            other = first.setdefault(dataset.name, key)
            if other != key:
                yield f"datasets.{key}: is called {dataset.name}, like datasets.{other}; give it another name"


def _selected(options: TrainOptions) -> Iterator[str]:
    known = [dataset.name for dataset in options.datasets.measured("val")]
    for name in [] if options.val is None else options.val.selection:
        if name not in known:
            yield f"val.select_on: no data set for validation is called {name!r} (there: {', '.join(known) or 'none'})"


def _factor(scheduler: Scheduler | None, lr: float, total_iter: int) -> Factor:
    if isinstance(scheduler, MultiStepOptions):
        return multistep(scheduler.milestones, scheduler.gamma, scheduler.restarts, scheduler.restart_weights)
    if isinstance(scheduler, CosineOptions):
        return cosine_restarts(scheduler.periods, scheduler.restart_weights, scheduler.eta_min / lr)
    if isinstance(scheduler, StableDecayOptions):
        decay, weight = scheduler.decay_iter, scheduler.restart_weights[0]
        return stable_decay(total_iter, decay, weight, scheduler.eta_min / lr)
    return constant()
