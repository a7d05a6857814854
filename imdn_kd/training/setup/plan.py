"""Everything that an option file names, opened and compared before any work; all that is wrong is reported at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.archs.reparam import can_expand
from imdn_kd.data.base import ImagePairs
from imdn_kd.data.benchmark_sets import ImageSet, find_set
from imdn_kd.data.store import StoreDataset
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import ADAPTERS, CRITIC, STUDENT, Distiller
from imdn_kd.distill.schema import GROUND_TRUTH_OPTIONS
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import LossTerm, OutputTerm, weight_schedule
from imdn_kd.errors import InputError
from imdn_kd.evaluation.metrics import is_measurable
from imdn_kd.evaluation.schema import DatasetOptions
from imdn_kd.inference.device import choose_dtype
from imdn_kd.inference.weights import MisfitError, load_weights
from imdn_kd.integrations.teachers import open_teacher
from imdn_kd.registry import ARCHS, LOSSES
from imdn_kd.training import distributed as launch
from imdn_kd.training.checkpoint import State
from imdn_kd.training.loader import TrainLoader, open_images
from imdn_kd.training.log import missing_trackers
from imdn_kd.training.optim import check_optimizer
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schedule import (
    Factor,
    constant,
    cosine_restarts,
    multistep,
    warm_up,
)
from imdn_kd.training.schema import CosineOptions, MultiStepOptions, TrainOptions
from imdn_kd.training.setup.resume import changes, check_trainable_modules, state_to_go_on_from
from imdn_kd.training.setup.teacher_cache import TeacherCache
from imdn_kd.training.setup.warnings import config_warnings, distill_warnings
from imdn_kd.training.validation import reported_on
from imdn_kd.utils.files import check_folder

Made = TypeVar("Made")


@dataclass
class TrainSetup:
    """What a run is made of.

    Attributes:
        network: with its first weights, on the CPU.
        loader: training loader.
        distiller: the network with its teachers and loss terms.
        cache: the results of teachers that are to be in the store; None if they are not wanted.
        lr_schedules: of each trainable module, by name.
        val: data sets that are scored during training.
        test: data sets that are scored at the end.
        state: what is gone on from; None to begin.
        warnings: what the user should know of the options, a line each.
    """

    network: SRNetwork
    loader: TrainLoader
    distiller: Distiller
    lr_schedules: Mapping[str, Factor]
    val: list[ImageSet]
    test: list[ImageSet]
    cache: TeacherCache | None = None
    state: State | None = None
    warnings: list[str] = field(default_factory=list)


def build_setup(options: TrainOptions, *, device: torch.device, root: Path, auto_resume: bool = False) -> TrainSetup:
    """Open everything that the options name.

    Args:
        options: of the run.
        device: where it is to run.
        root: folder of all runs.
        auto_resume: go on from the newest state of the run, if there is one.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    problems = _Problems()
    named = "--auto_resume" if auto_resume else "path.resume_state"
    folder = RunFolder(root / options.name)
    state = problems.of(named, lambda: state_to_go_on_from(options, folder, auto_resume=auto_resume))
    torch.manual_seed(options.manual_seed)  # of the first weights
    network = problems.of("network_g", lambda: _network(options))
    loader = problems.of("datasets.train", lambda: open_loader(options))
    terms = [*_terms(options, problems)]
    teachers = [*_teachers(options, device, problems)]
    distiller, cache = None, None
    if network is not None:
        problems.lines += _sizes(options, network.info)
    known = len(teachers) == len(options.teachers())
    if options.distill is not None and options.distill.cache and loader is not None and known:
        cache = problems.of("distill.cache", partial(_cache, options, loader.images, teachers))
    if options.distill is not None and network is not None and not problems.lines:
        key = None if cache is None else cache.plane
        distiller = problems.of("distill", lambda: _distiller(options, network, teachers, terms, key))
    elif network is not None and not problems.lines:
        distiller = Distiller(network, None, terms)
    for key in ("optim_g", "optim_a", "optim_d"):
        optim = getattr(options.train, key)
        if optim is not None:
            with problems.at(f"train.{key}"):
                check_optimizer(optim.type, optim.settings())
    lr_schedules = _lr_schedules(options, problems)
    val, test = ([*_sets(options, phase, problems)] for phase in ("val", "test"))
    problems.lines += _selection(options, val, test)
    processes = launch.world_size()
    more = config_warnings(options, processes)
    if distiller is not None and not problems.lines:
        more += distill_warnings(options, distiller)
    if options.train.reparam is not None and network is not None and not can_expand(network):
        more.append("train.reparam: no effect, since the network has no 3x3 convolutions")
    if state is not None:
        if distiller is not None and not problems.lines:
            problems.lines += check_trainable_modules(state, options, distiller.trainable_modules())
        more += changes(state, options)
    elif network is not None and options.path.pretrained is not None:
        more += _pretrain(options, network, problems)
    with problems.at("train.precision"):
        choose_dtype(options.train.precision, device)
    problems.lines += [f"logger.{line}" for line in missing_trackers(options.logger)]
    if options.num_gpu != 0 and device.type == "cpu":
        more.append("num_gpu: there is no GPU here; the run is on the CPU")
    gpus = torch.cuda.device_count()
    if options.num_gpu == "auto" and gpus > 1 and processes == 1:
        more.append(
            f"num_gpu: one of {gpus} GPUs is used; all with torchrun --nproc_per_node {gpus} -m imdn_kd train ..."
        )
    with problems.at("--root"):
        check_folder(folder.path)
    if problems.lines or network is None or loader is None or distiller is None:
        raise InputError(*problems.lines)
    if cache is not None and cache.is_there:
        loader = open_loader(options, (cache.plane,))
    return TrainSetup(network, loader, distiller, lr_schedules, val, test, cache, state, more)


def open_networks(options: TrainOptions) -> tuple[SRNetwork, list[Teacher]]:
    """Open student and teachers alone, on the CPU.

    Raises:
        InputError: with a line for each that cannot be used.
    """
    problems = _Problems()
    torch.manual_seed(options.manual_seed)  # of the first weights
    network = problems.of("network_g", lambda: _network(options))
    teachers = [*_teachers(options, torch.device("cpu"), problems)]
    if network is None or problems.lines:
        raise InputError(*problems.lines)
    return network, teachers


class _Problems:
    """Collects what is wrong, each with the option that it belongs to."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def at(self, option: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self.lines += [f"{option}: {line}" for line in error.lines]

    def of(self, option: str, make: Callable[[], Made]) -> Made | None:
        with self.at(option):
            return make()
        return None


def _network(options: TrainOptions) -> SRNetwork:
    network: SRNetwork = ARCHS.build(options.network_g.spec())
    if network.info.scale != options.scale:
        raise InputError(f"{options.network_g.type} enlarges x{network.info.scale}, but scale is {options.scale}")
    return network


def open_loader(options: TrainOptions, planes: tuple[str, ...] = ()) -> TrainLoader:
    """Open what is trained on, with further planes of the store."""
    data = options.datasets.train
    images = open_images(data, options.scale, planes)
    return TrainLoader(data, images, seed=options.manual_seed, accumulation=options.train.accumulation)


def _terms(options: TrainOptions, problems: _Problems) -> Iterator[LossTerm]:
    """The losses between the network's results and the originals."""
    for name, given in options.train.losses().items():
        loss = problems.of(f"train.{GROUND_TRUTH_OPTIONS[name]}", partial(LOSSES.build, given.spec()))
        if loss is not None:
            weight = weight_schedule(given.loss_weight, total=options.train.total_iter)
            yield OutputTerm(loss, weight=weight, name=name)


def _teachers(options: TrainOptions, device: torch.device, problems: _Problems) -> Iterator[Teacher]:
    channels = 1 if options.datasets.train.color == "y" else 3
    for number, given in enumerate(options.teachers()):
        place = f"network_t.{number}" if isinstance(options.network_t, list) else "network_t"
        opening = partial(open_teacher, given, scale=options.scale, num_in_ch=channels, device=device)
        teacher = problems.of(place, partial(opening, precision=options.train.precision))
        if teacher is not None:
            yield teacher


def _cache(options: TrainOptions, images: ImagePairs, teachers: list[Teacher]) -> TeacherCache:
    if not isinstance(images, StoreDataset):
        raise InputError("the teacher's results are kept in a store; make one with imdn-kd prepare, or leave this out")
    if options.datasets.train.color == "y":
        raise InputError("a store holds RGB, but color: y trains on Y; leave this out")
    cache = TeacherCache(images.store, options.scale, teachers, options.teachers())
    if not cache.is_there and not os.access(images.store.path, os.W_OK):
        raise InputError(
            f"{images.store.path}: cannot be written; copy the store to where it can be, or leave this out"
        )
    return cache


def _distiller(
    options: TrainOptions, network: SRNetwork, teachers: list[Teacher], terms: list[LossTerm], key: str | None
) -> Distiller:
    assert options.distill is not None  # noqa: S101
    sides = {stage.gt_size // options.scale for stage in options.datasets.train.stages()}
    total = options.train.total_iter
    return build_distiller(options.distill, network, teachers, terms=terms, total=total, sides=[*sides], cache_key=key)


def _lr_schedules(options: TrainOptions, problems: _Problems) -> dict[str, Factor]:
    """How learning rates go on, by who learns; empty where this cannot be said."""
    train = options.train
    student = problems.of("train.scheduler", lambda: _factor(train.scheduler, train.optim_g.lr))
    critic = problems.of("train.scheduler_d", lambda: _factor(train.scheduler_d, train.optim_d.lr))
    if student is None or critic is None:
        return {}
    student = warm_up(student, train.warmup_iter)
    return {STUDENT: student, ADAPTERS: student, CRITIC: critic}


def _factor(scheduler: MultiStepOptions | CosineOptions | None, rate: float) -> Factor:
    if isinstance(scheduler, MultiStepOptions):
        return multistep(scheduler.milestones, scheduler.gamma, scheduler.restarts, scheduler.restart_weights)
    if isinstance(scheduler, CosineOptions):
        return cosine_restarts(scheduler.periods, scheduler.restart_weights, scheduler.eta_min / rate)
    return constant()


def _sizes(options: TrainOptions, info: ModelInfo) -> Iterator[str]:
    channels = 1 if options.datasets.train.color == "y" else 3
    if info.num_in_ch != channels:
        yield f"network_g: takes images of {info.num_in_ch} channels, but training images have {channels}"
    for stage in options.datasets.train.stages():
        side, rest = divmod(stage.gt_size, options.scale)
        if rest:
            continue  # told with the data
        if side % info.size_multiple or side < info.min_size:
            needed = f"at least {info.min_size} px and a multiple of {info.size_multiple}"
            yield f"datasets.train.gt_size: {stage.gt_size} gives inputs of {side} px, but the network needs {needed}"


def _sets(options: TrainOptions, phase: Any, problems: _Problems) -> Iterator[ImageSet]:  # noqa: ANN401
    measured = options.datasets.measured(phase)
    if measured and options.scale == 1:
        problems.lines.append(f"datasets.{phase}: at scale 1 nothing is scored; leave it out, and select_on as well")
        return
    for name, count in Counter(dataset.name for dataset in measured).items():
        if count > 1:
            problems.lines.append(f"datasets.{phase}: {count} data sets are called {name}; give them different names")
    for dataset in measured:
        images = problems.of(f"datasets.{phase}", lambda dataset=dataset: _open(dataset, options))  # type: ignore[misc]
        if images is not None:
            yield images


def _open(dataset: DatasetOptions, options: TrainOptions) -> ImageSet:
    images = find_set(dataset.source(), options.scale)
    for pair in images.pairs:
        hr, _ = images.load(pair)
        if not is_measurable(hr.shape[:2], options.scale, options.protocol()):
            raise InputError(f"{pair.hr}: {hr.shape[1]}x{hr.shape[0]} px are too few to be measured; remove it")
    return images


def _selection(options: TrainOptions, val: Sequence[ImageSet], test: Sequence[ImageSet]) -> Iterator[str]:
    if options.val is None:
        return
    known = [dataset.name for dataset in options.datasets.measured("val")]
    for name in options.val.selection:
        if name not in known:
            yield f"val.select_on: no data set for validation is called {name!r} (there: {', '.join(known) or 'none'})"
        chosen = next((images for images in val if images.name == name), None)
        if chosen is not None and not options.val.select_on_benchmark and reported_on(chosen, test):
            yield (
                f"val.select_on: {name} is a data set that results are reported on, and weights selected on it would "
                "flatter them; select on other photographs, or set val.select_on_benchmark: true"
            )


def _pretrain(options: TrainOptions, network: SRNetwork, problems: _Problems) -> list[str]:
    path, given = str(options.path.pretrained), options.path

    def load() -> list[str]:
        try:
            return load_weights(network, path, key=given.param_key_g, strict=given.strict)
        except MisfitError as error:
            raise InputError(f"{error}, or set strict_load_g: false to take what fits") from error

    left = problems.of("path.pretrain_network_g", load)
    return [f"path.pretrain_network_g: not loaded: {line}" for line in left or ()]
