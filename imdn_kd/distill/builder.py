"""From options to a distiller: loss terms by name, all tried out on noise."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.distill.distiller import Distiller, noise
from imdn_kd.distill.holistic import HolisticTerm
from imdn_kd.distill.schema import DistillOptions, LossTermOptions
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import (
    ContrastiveTerm,
    FeatureTerm,
    LossTerm,
    OutputTerm,
    WeightSchedule,
    weight_schedule,
)
from imdn_kd.errors import InputError, Problems
from imdn_kd.losses.base import FeatureLoss
from imdn_kd.losses.contrastive import ContrastiveLoss
from imdn_kd.registry import LOSS_TERMS, LOSSES


def build_distiller(
    options: DistillOptions,
    student: SRNetwork,
    teachers: Sequence[Teacher],
    *,
    terms: Sequence[LossTerm] = (),
    total: int,
    sides: Sequence[int],
    cache_key: str | None = None,
) -> Distiller:
    """Build the loss terms, and try them out: student, teachers and terms run on a patch of noise of each size.

    Args:
        options: which terms.
        student: gets hooks if features of it are compared.
        teachers: likewise; one or more.
        terms: further ones, which come first.
        total: iterations of the training.
        sides: of LR patches, px.
        cache_key: see `Distiller`.

    Raises:
        InputError: with a line for each term that cannot be used.
    """
    built: list[LossTerm] = []
    with Problems() as problems:
        for name, given in options.objectives.items():
            with problems.at(f"objectives.{name}"):
                term = _term(given, student.info.num_in_ch)
                term.name, term.weight = name, _schedule(given, total)
                built.append(term)
    side = min(sides)
    try:
        # Not a square, nor a single window of a transformer: there, what is no map may pass for one.
        distiller = Distiller(student, teachers, [*terms, *built], cache_key=cache_key, probe_size=(side, 2 * side))
    except InputError as error:
        raise InputError(*(f"objectives.{line}" for line in error.lines), code=error.code) from error
    changes = {0, *(edge for given in options.objectives.values() for edge in (given.start_iter, given.stop_iter or 0))}
    for iteration in sorted(changes):
        if iteration < total and not any(term.weight_at(iteration) for term in distiller.terms):
            raise InputError(
                f"objectives: all weights are 0 after {iteration} iterations; let one of them count then",
                code="distill.no-loss",
            )
    for side in sorted(set(sides)):
        _try(distiller, side)
    return distiller


def _term(given: LossTermOptions, channels: int) -> LossTerm:
    if given.type not in LOSSES and given.type not in LOSS_TERMS:
        names = {name.casefold(): name for name in (*LOSSES, *LOSS_TERMS)}
        near = difflib.get_close_matches(given.type.casefold(), names, n=1)
        hint = f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(sorted(names.values()))}"
        raise InputError(f"no loss or loss term is called {given.type!r}; {hint}", code="distill.unknown-type")
    spec = given.spec()
    loss: nn.Module | None = LOSSES.build(spec) if given.type in LOSSES else None
    if isinstance(loss, FeatureLoss):
        return FeatureTerm(loss, at=given.taps or ["sr"], at_weights=given.tap_weights)
    builder = None if loss is not None else LOSS_TERMS.get(given.type)
    if isinstance(builder, type) and issubclass(builder, FeatureTerm):
        if given.tap_weights is not None and "at_weights" not in inspect.signature(builder).parameters:
            raise InputError(
                f"{given.type} weighs all taps alike; leave out tap_weights", code="distill.no-tap-weights"
            )
        weights = {} if given.tap_weights is None else {"at_weights": given.tap_weights}
        of_features: LossTerm = LOSS_TERMS.build({**spec, "at": given.taps or ["sr"], **weights})
        return of_features
    if isinstance(loss, ContrastiveLoss) and given.taps is not None and given.tap_weights is None:
        if not all(isinstance(tap, str) for tap in given.taps) or loss.space != "pixels":
            raise InputError(
                f"with taps, {given.type} compares images by these features of the teacher: give names of them, and no "
                "space",
                code="distill.no-features",
            )
        return ContrastiveTerm(loss, at=[str(tap) for tap in given.taps])
    if given.taps is not None or given.tap_weights is not None:
        raise InputError(
            f"{given.type} compares no features, so leave out taps and tap_weights", code="distill.no-features"
        )
    if loss is not None:
        return ContrastiveTerm(loss) if isinstance(loss, ContrastiveLoss) else OutputTerm(loss, target="teacher")
    if given.type == HolisticTerm.__name__ and isinstance(spec.get("critic", {}), Mapping):
        spec["critic"] = {"num_in_ch": channels, **spec.get("critic", {})}
    term: LossTerm = LOSS_TERMS.build(spec)
    return term


def _schedule(given: LossTermOptions, total: int) -> WeightSchedule:
    return weight_schedule(
        given.loss_weight,
        total=total,
        start=given.start_iter,
        stop=given.stop_iter,
        ramp=given.ramp_iter,
        decay=given.decay_iter,
    )


def _try(distiller: Distiller, side: int) -> None:
    """Compute every term once on a square patch, without any effect."""
    student, scale = distiller.student, distiller.info.scale
    lq = noise(student, distiller.info, (side, side))
    gt = noise(student, distiller.info, (side * scale, side * scale))
    cached = gt if distiller.cache_key is not None and not distiller.teacher_required else None
    training = student.training
    with Problems() as problems, torch.no_grad(), torch.random.fork_rng([]):
        context = StepContext(
            {"lq": lq, "gt": gt},
            student=student.eval(),
            info=distiller.info,
            hooks=distiller.hooks,
            teachers=distiller.teachers,
            cached=cached,
        )
        for term in distiller.terms:
            with problems.at(f"objectives.{term.name}"):
                if not term(context).isfinite():
                    raise InputError(
                        "is not finite for a patch of noise; check the weights of the teacher",
                        code="distill.not-finite",
                    )
        student.train(training)
