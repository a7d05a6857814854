"""A student, its teachers and the loss terms: batches in, named losses out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.critic import Critic
from imdn_kd.archs.probing import info_of
from imdn_kd.distill.cached_maps import CachedMap
from imdn_kd.distill.feature_pairs import Names, pair_features, resolve_names
from imdn_kd.distill.holistic import HolisticTerm
from imdn_kd.distill.hooks import SR, FeatureHooks
from imdn_kd.distill.step_context import StepContext
from imdn_kd.distill.teacher import STUDENT_MISMATCH, Teacher
from imdn_kd.distill.terms import ContrastiveTerm, FeatureTerm, LossTerm
from imdn_kd.errors import InputError, Problems

STUDENT, ADAPTERS, CRITIC = "student", "adapters", "critic"
"""Names of the trainable modules; each has its own optimizer."""


@dataclass(frozen=True)
class OptimStep:
    """One optimizer step within an iteration, over all its batches.

    Attributes:
        trains: names of the modules whose optimizers step.
        losses: from what was made of a batch to the weighted losses by name; their sum is minimised.
    """

    trains: tuple[str, ...]
    losses: Callable[[StepContext], dict[str, Tensor]]


class Distiller(nn.Module):
    """Computes the losses of a student, and of a critic that is trained against it.

        kd = Distiller(student, teacher, [OutputTerm(losses.L1Loss(), target="teacher")])
        named = kd(lq, gt)
        sum(named.values()).backward()

    `parameters()` and `state_dict()` hold the student and its adapters, never a teacher; see `critic` for the critic.
    Teachers and terms are on the device of the student, and move with it. Feature hooks are set and probed here.

    Args:
        student: any module from images N x C x H x W in [0, 1] to images N x C x sH x sW. May be replaced later by the
            same network wrapped for mixed precision or several processes.
        teachers: one or several, as `Teacher` or as what that takes; none if no term needs them.
        terms: of the loss, one or more.
        cache_key: key of the batches that holds the cached output of the teachers; None if they run instead.
        probe_size: height and width in px of the noise that feature hooks are probed with (default: the smallest that
            the student takes, from 16).

    Raises:
        InputError: with a line for each teacher or term that cannot be used.
    """

    def __init__(
        self,
        student: nn.Module,
        teachers: Teacher | nn.Module | str | Path | Sequence[Teacher] | None,
        terms: Sequence[LossTerm],
        *,
        cache_key: str | None = None,
        probe_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.info = info_of(student)
        self.student = student
        # In tuples, so that they are no submodules.
        self.teachers = _as_teachers(teachers)
        self.terms = tuple(terms)
        self.cache_key = cache_key
        self._probe_size: tuple[int, ...] = ()
        self._check_teachers()
        self._check_terms()
        self.hooks = self._bind_features(probe_size)
        self._bind_spaces(probe_size)
        adapted = [term for term in self.terms if isinstance(term, FeatureTerm) and len(term.adapters)]
        # With a prefix, since names such as `keys` are taken in a ModuleDict.
        self.adapters = nn.ModuleDict({f"of_{term.name}": term.adapters for term in adapted})
        self.to(_device_of(student))

    @property
    def critic(self) -> Critic | None:
        """The critic of the holistic term, which has an optimizer of its own; None without such a term."""
        return next((term.critic for term in self.terms if isinstance(term, HolisticTerm)), None)

    def trainable_modules(self) -> dict[str, nn.Module]:
        """What is trained beside the student, by name."""
        found: dict[str, nn.Module] = {ADAPTERS: self.adapters} if len(self.adapters) else {}
        if self.critic is not None:
            found[CRITIC] = self.critic
        return found

    @property
    def teacher_required(self) -> bool:
        """Whether teachers run during training: not if all that is needed of them is cached."""
        output = self.cache_key is None and any(term.uses_teacher_output for term in self.terms)
        return output or any(term.needs_online_teacher for term in self.terms)

    def maps(self) -> dict[str, dict[tuple[int, int], CachedMap | None]]:
        """What could be cached in place of teachers' features, by the name of the term; see `FeatureTerm.maps`."""
        terms = (term for term in self.terms if isinstance(term, FeatureTerm))
        return {term.name: term.maps(self._probe_size) for term in terms}

    def use_cached(self, keys: Mapping[CachedMap, str]) -> None:
        """Compare with cached maps where a batch has them; teachers then need not run.

        Args:
            keys: of the batch, N x C x h x w each, for maps that `maps` returns.
        """
        for term in self.terms:
            if isinstance(term, FeatureTerm):
                maps = term.maps(self._probe_size).items()
                term.use_cached({place: keys[each] for place, each in maps if each is not None and each in keys})

    def forward(self, lq: Tensor, gt: Tensor, *, iteration: int = 0) -> dict[str, Tensor]:
        """Return the student's weighted losses by name; their sum is minimised.

        Args:
            lq: LR images, N x C x H x W in [0, 1].
            gt: the ground truth, N x C x sH x sW in [0, 1].
            iteration: iterations done, for weights that follow a schedule.
        """
        return self.losses(self.run_student({"lq": lq, "gt": gt}), iteration)

    def run_student(self, batch: Mapping[str, Tensor]) -> StepContext:
        """Run the student on a batch.

        Args:
            batch: `lq`, N x C x H x W, and `gt`, N x C x sH x sW, in [0, 1]; the teachers' output at `cache_key`, if
                there is one, is like `gt`; maps of their features, see `use_cached`.
        """
        cached = None if self.cache_key is None else batch[self.cache_key]
        return StepContext(
            batch, student=self.student, info=self.info, hooks=self.hooks, teachers=self.teachers, cached=cached
        )

    def losses(self, context: StepContext, iteration: int) -> dict[str, Tensor]:
        """Return the student's weighted losses by name, without those whose weight is 0 now.

        Args:
            context: of a batch.
            iteration: iterations done.
        """
        weights = {term.name: term.weight_at(iteration) for term in self.terms}
        return {term.name: weights[term.name] * term(context) for term in self.terms if weights[term.name]}

    def optim_steps(self, iteration: int) -> list[OptimStep]:
        """The optimizer steps of an iteration: the student's first, then those of the critic on the same outputs.

        Args:
            iteration: iterations done.
        """
        adapters = (ADAPTERS,) if len(self.adapters) else ()
        steps = [OptimStep((STUDENT, *adapters), lambda context: self.losses(context, iteration))]
        for term in self.terms:
            if isinstance(term, HolisticTerm) and term.weight_at(iteration):
                steps += [OptimStep((CRITIC,), term.critic_losses)] * term.n_critic
        return steps

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distiller:
        """Move teachers and terms with the student; teachers that never run stay on the CPU."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for term in self.terms:
            term._apply(fn)  # type: ignore[no-untyped-call]
        for teacher in self.teachers:
            if self.teacher_required:
                teacher._apply(fn)  # type: ignore[no-untyped-call]
            else:
                teacher.cpu()
        return self

    def _check_teachers(self) -> None:
        with Problems() as problems:
            for teacher in self.teachers:
                with problems.at(teacher.name):
                    ours, its = ((info.scale, info.num_in_ch) for info in (self.info, teacher.info))
                    if its != ours:
                        made = f"upscales images of {its[1]} channels x{its[0]}, the student of {ours[1]} x{ours[0]}"
                        raise InputError(f"{made}; give another teacher", code=STUDENT_MISMATCH)

    def _check_terms(self) -> None:
        names: set[str] = set()
        with Problems() as problems:
            for term in self.terms:
                with problems.at(term.name):
                    if term.name in names:
                        raise InputError("another loss has this name; choose another one", code="distill.name-taken")
                    if not self.teachers and (isinstance(term, FeatureTerm) or term.uses_teacher):
                        raise InputError("needs a teacher, but there is none; give one", code="distill.no-teacher")
                    if isinstance(term, HolisticTerm) and term.critic is not self.critic:
                        raise InputError("there is another HolisticTerm; give one", code="distill.several-critics")
                names.add(term.name)

    def _bind_features(self, probe_size: tuple[int, int] | None) -> FeatureHooks | None:
        """Resolve the features that terms compare, set hooks on all networks and probe them."""
        terms = [term for term in self.terms if isinstance(term, FeatureTerm)]
        if not terms:
            return None
        names: dict[str, list[Names]] = {}
        with Problems() as problems:
            for term in terms:
                with problems.at(term.name):
                    names[term.name] = [resolve_names(term.at, self.student, t.network) for t in self.teachers]
        lq = noise(self.student, self.info, probe_size)
        self._probe_size = tuple(lq.shape[2:])
        wanted: dict[str, None] = {}
        for of_teachers in names.values():
            for pairs in of_teachers:
                wanted |= dict.fromkeys(one for one, _ in pairs if one != SR)
        hooks = FeatureHooks(self.student, [*wanted]) if wanted else None
        mine = {info.name: info.shape for info in hooks.probe(lq)} if hooks else {}
        mine[SR] = (*lq.shape[:2], lq.shape[2] * self.info.scale, lq.shape[3] * self.info.scale)
        theirs = []
        for number, teacher in enumerate(self.teachers):
            teacher.to(lq.device)
            theirs.append(teacher.hook([other for each in names.values() for _, other in each[number]], lq))
        total = sum(teacher.weight for teacher in self.teachers)
        with Problems() as problems:
            for term in terms:
                with problems.at(term.name):
                    found = [
                        pair_features(each, term.loss, mine, shapes, term.at_weights)
                        for each, shapes in zip(names[term.name], theirs, strict=True)
                    ]
                    term.bind(found, [teacher.weight / total for teacher in self.teachers])
        return hooks

    def _bind_spaces(self, probe_size: tuple[int, int] | None) -> None:
        """Let terms hook the features of teachers that they compare images by."""
        image = noise(self.student, self.info, probe_size)
        with Problems() as problems:
            for term in self.terms:
                if isinstance(term, ContrastiveTerm):
                    for teacher in self.teachers:
                        teacher.to(image.device)
                    with problems.at(term.name):
                        term.bind(self.teachers, image)


def _as_teachers(given: Teacher | nn.Module | str | Path | Sequence[Teacher] | None) -> tuple[Teacher, ...]:
    if given is None:
        return ()
    if isinstance(given, Teacher):
        return (given,)
    return (Teacher(given),) if isinstance(given, (nn.Module, str, Path)) else tuple(given)


def noise(student: nn.Module, info: ModelInfo, size: tuple[int, int] | None = None) -> Tensor:
    """A batch of one image of noise, 1 x C x H x W, on the device of the student.

    Args:
        student: it is for.
        info: of the student.
        size: height and width in px (default: the smallest that the student takes, from 16; twice as wide as high).
    """
    side = -(-max(16, info.min_size) // info.size_multiple) * info.size_multiple
    # Not a square, nor a single window of a transformer: there, what is no map may pass for one.
    height, width = size or (side, 2 * side)
    image = torch.rand(1, info.num_in_ch, height, width, generator=torch.Generator().manual_seed(0))
    return image.to(_device_of(student))


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
