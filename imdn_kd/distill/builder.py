"""From options to a lesson: objectives with the features that they need, all tried out on one patch."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import SRNetwork
from imdn_kd.distill.distiller import Lesson
from imdn_kd.distill.feature_names import match, resolve
from imdn_kd.distill.holistic import Holistic
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.distill.schema import DistillOptions, ObjectiveOptions
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import ContrastiveTerm, FeaturePair, FeatureTerm, Objective, OutputTerm, Term
from imdn_kd.distill.weighting import Weight, weight_schedule
from imdn_kd.errors import InputError
from imdn_kd.losses.base import FeatureLoss, PixelLoss
from imdn_kd.losses.contrastive import ContrastiveLoss
from imdn_kd.registry import LOSSES, OBJECTIVES

Names = list[tuple[str, str]]
"""FeatureHooks that are compared: of the student and of a teacher."""

Shapes = Mapping[str, tuple[int, ...]]


def make_lesson(
    options: DistillOptions,
    student: SRNetwork,
    teachers: Sequence[Teacher],
    *,
    terms: Sequence[Term] = (),
    total: int,
    sides: Sequence[int],
    plane: str | None = None,
) -> Lesson:
    """Build the objectives, and try them out: student, teachers and objectives run on a patch of noise of each size.

    Args:
        options: what is to be learned.
        student: whose features are tapped from now on, if an objective needs them.
        teachers: likewise; one or more.
        terms: of the loss beside these, which come first.
        total: updates of the training.
        sides: of low-quality patches, px.
        plane: plane of the batches that will have the teachers' results; None where they are asked.

    Raises:
        InputError: with a line for each objective that cannot be used.
    """
    problems: list[str] = []
    taken = {term.name for term in terms}
    built: dict[str, nn.Module] = {}
    names: dict[str, list[Names]] = {}
    for name, given in options.objectives.items():
        with _collected(problems, name):
            if name in taken:
                raise InputError(f"another loss is logged as {name}; choose another name")
            built[name] = _build(given, student.info.num_in_ch)
            if isinstance(built[name], FeatureLoss):
                names[name] = [_names(given, student, teacher.network) for teacher in teachers]
            elif given.taps is not None or given.tap_weights is not None:
                raise InputError(f"{given.type} compares no features, so leave out taps and tap_weights")
    if problems:
        raise InputError(*problems)

    # Not a square, nor of one window of a transformer: in these, what is no map may pass for one.
    lq, _ = _patch(student, min(sides), 2 * min(sides))
    taps, mine = _tap(student, [one for several in names.values() for pairs in several for one, _ in pairs], lq)
    theirs = [
        teacher.tap([other for several in names.values() for _, other in several[number]], lq)
        for number, teacher in enumerate(teachers)
    ]
    shares = [teacher.weight / sum(teacher.weight for teacher in teachers) for teacher in teachers]
    added: list[Term] = []
    for name, given in options.objectives.items():
        with _collected(problems, name):
            objective = built[name]
            if isinstance(objective, FeatureLoss):
                pairs = [
                    _paired(given, objective, each, mine, shapes)
                    for each, shapes in zip(names[name], theirs, strict=True)
                ]
                objective = FeatureTerm(objective, pairs, shares)
            elif isinstance(objective, PixelLoss):
                objective = OutputTerm(objective)
            elif isinstance(objective, ContrastiveLoss):
                objective = ContrastiveTerm(objective)
            assert isinstance(objective, Objective)  # noqa: S101
            added.append(Term(name, objective, _course(given, total)))
    if problems:
        raise InputError(*problems)
    lesson = Lesson((*terms, *added), teachers, plane, taps)
    moments = {0, *(edge for given in options.objectives.values() for edge in (given.start_iter, given.stop_iter or 0))}
    for step in sorted(moments):
        if step < total and not any(term.weight(step) for term in lesson.terms):
            raise InputError(f"objectives: nothing is to be learned after {step} updates; let one of them count then")
    if sum(isinstance(term.objective, Holistic) for term in added) > 1:
        raise InputError("objectives: there is more than one Holistic; give one")
    for side in sorted(set(sides)):
        _try(lesson, student, _patch(student, side, side))
    return lesson


@contextmanager
def _collected(problems: list[str], name: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        problems += [f"objectives.{name}: {line}" for line in error.lines]


def _build(given: ObjectiveOptions, channels: int) -> nn.Module:
    if given.type in OBJECTIVES:
        spec = given.spec()
        if given.type == Holistic.__name__ and isinstance(spec.get("critic", {}), Mapping):
            spec["critic"] = {"num_in_ch": channels, **spec.get("critic", {})}
        objective: nn.Module = OBJECTIVES.build(spec)
        return objective
    if given.type not in LOSSES:
        names = {name.casefold(): name for name in (*LOSSES, *OBJECTIVES)}
        near = difflib.get_close_matches(given.type.casefold(), names, n=1)
        hint = f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(sorted(names.values()))}"
        raise InputError(f"no objective or loss is called {given.type!r}; {hint}")
    loss: nn.Module = LOSSES.build(given.spec())
    return loss


def _names(given: ObjectiveOptions, student: SRNetwork, teacher: SRNetwork) -> Names:
    found: Names = []
    for one, other in given.pairs():
        pair = match(student, teacher, one) if other is None else (resolve(student, one), resolve(teacher, other))
        several = [_expanded(network, tap) for network, tap in zip((student, teacher), pair, strict=True)]
        if len(several[0]) != len(several[1]):
            counts = f"{len(several[0])} features of the student and {len(several[1])} of the teacher"
            raise InputError(f"{one}: stands for {counts}; name them in pairs, as [STUDENT: TEACHER, ...]")
        found += zip(*several, strict=True)
    return found


def _expanded(network: SRNetwork, tap: str) -> Sequence[str]:
    """What a tap with wildcards stands for."""
    if tap == SR:
        return [SR]
    taps = FeatureHooks(network, [tap])
    taps.remove()
    return taps.names


def _tap(student: SRNetwork, names: Sequence[str], lq: Tensor) -> tuple[FeatureHooks | None, Shapes]:
    wanted = [name for name in dict.fromkeys(names) if name != SR]
    taps = FeatureHooks(student, wanted) if wanted else None
    found = taps.probe(lq) if taps else []
    return taps, {SR: _shape_of_sr(student, lq)} | {row.name: row.shape for row in found}


def _shape_of_sr(network: SRNetwork, lq: Tensor) -> tuple[int, ...]:
    scale = network.info.scale
    return (*lq.shape[:2], lq.shape[2] * scale, lq.shape[3] * scale)


def _paired(
    given: ObjectiveOptions, loss: FeatureLoss, names: Names, mine: Shapes, theirs: Shapes
) -> list[FeaturePair]:
    weights = given.tap_weights or [1 / len(names)] * len(names)
    if len(weights) != len(names):
        raise InputError(f"taps stand for {len(names)} features, but there are {len(weights)} tap_weights")
    pairs = []
    for (one, other), weight in zip(names, weights, strict=True):
        narrow, wide = mine[one][1], theirs[other][1]
        if mine[one][2:] != theirs[other][2:]:
            sizes = f"{_size(mine[one])} and {_size(theirs[other])}"
            raise InputError(f"{one} of the student and {other} of the teacher differ in size: {sizes}; choose others")
        adapts = narrow != wide and loss.adapts
        if narrow != wide and loss.requires_same_channels and not adapts:
            widths = f"{narrow} and {wide} channels"
            raise InputError(
                f"{one} of the student and {other} of the teacher have {widths}, which {given.type} cannot compare; "
                "choose others, or another loss"
            )
        pairs.append(FeaturePair(one, other, weight, (narrow, wide) if adapts else None))
    return pairs


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[3]}x{shape[2]}"


def _course(given: ObjectiveOptions, total: int) -> Weight:
    return weight_schedule(
        given.loss_weight,
        total=total,
        start=given.start_iter,
        stop=given.stop_iter,
        ramp=given.ramp_iter,
        decay=given.decay_iter,
    )


def _patch(student: SRNetwork, height: int, width: int) -> tuple[Tensor, Tensor]:
    """`lq` and `gt`, of noise."""
    info, generator = student.info, torch.Generator().manual_seed(0)
    lq = torch.rand(1, info.num_in_ch, height, width, generator=generator)
    return lq, torch.rand(_shape_of_sr(student, lq), generator=generator)


def _try(lesson: Lesson, student: SRNetwork, patch: tuple[Tensor, Tensor]) -> None:
    """Compute every objective once, without any effect."""
    batch = dict(zip(("lq", "gt"), patch, strict=True))
    problems: list[str] = []
    training = student.training
    cached = batch["gt"] if lesson.plane is not None and not lesson.teacher_required else None
    with torch.no_grad(), torch.random.fork_rng([]):
        context = StepContext(
            batch,
            student=student.eval(),
            info=student.info,
            taps=lesson.taps,
            teachers=lesson.teachers,
            cached=cached,
        )
        for term in lesson.terms:
            with _collected(problems, term.name):
                if not term.objective(context).isfinite():
                    raise InputError("is not finite for a patch of noise; check the weights of the teacher")
    student.train(training)
    if problems:
        raise InputError(*problems)
