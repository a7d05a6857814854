"""The second pass over an option file: open what it names; nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.base import ImagePairs
from imdn_kd.data.benchmark_sets import ImageSet, find_set
from imdn_kd.data.store import StoreDataset
from imdn_kd.distill.schema import GROUND_TRUTH_OPTIONS
from imdn_kd.distill.teacher import Teacher
from imdn_kd.distill.terms import LossTerm, OutputTerm, weight_schedule
from imdn_kd.errors import InputError, Problems
from imdn_kd.evaluation.benchmark import protocol_of
from imdn_kd.evaluation.metrics import is_measurable
from imdn_kd.evaluation.schema import DatasetOptions
from imdn_kd.inference.weights import MisfitError, load_weights
from imdn_kd.integrations.teachers import open_teacher
from imdn_kd.registry import ARCHS, LOSSES
from imdn_kd.training.checkpoint import State
from imdn_kd.training.loader import NO_PLANES, TrainLoader, open_images
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.resume import open_state
from imdn_kd.utils.files import check_folder


@dataclass(frozen=True)
class Inputs:
    """What an option file names, opened; what could not be opened is None or left out.

    Attributes:
        state: the training state to resume from; None to begin.
        network: the student with random weights, on the CPU.
        loader: training batches.
        terms: the losses between its outputs and the ground truth.
        teachers: on the CPU.
        val: data sets that are scored during training.
        test: data sets that are scored at the end.
        images_read: what `read_images` says.
    """

    state: State | None
    network: SRNetwork | None
    loader: TrainLoader | None
    terms: list[LossTerm]
    teachers: list[Teacher]
    val: list[ImageSet]
    test: list[ImageSet]
    images_read: str | None


PRETRAINED = "path.pretrain_network_g"
"""The option that names pretrained weights."""

ReadImages = Callable[[ImagePairs], str]
"""Reads training images; says how many. It raises InputError for those that cannot be used."""


def open_inputs(
    options: TrainOptions,
    folder: RunFolder,
    device: torch.device,
    problems: Problems,
    *,
    auto_resume: bool,
    read_images: ReadImages | None = None,
) -> Inputs:
    """Open all that an option file names.

    Args:
        options: of the run.
        folder: of the run.
        device: where it is to run.
        problems: takes what is wrong.
        auto_resume: resume from the newest state of the run, if there is one.
        read_images: reads training images in files; None leaves this to training.
    """
    with problems.at("--root"):
        check_folder(folder.path)
    state = problems.of(state_option(auto_resume), lambda: open_state(options, folder, auto_resume=auto_resume))
    # Networks draw their first weights from this, then losses and teachers what they need: the order counts.
    torch.manual_seed(options.manual_seed)
    network = problems.of("network_g", lambda: _network(options))
    images = problems.of("datasets.train", lambda: open_images(options.datasets.train, options.scale))
    loader = None if images is None else problems.of("datasets.train", lambda: _loader(options, images))
    read = None
    if images is not None and read_images is not None and not isinstance(images, StoreDataset):
        read = problems.of("datasets.train", lambda: read_images(images))
    terms, teachers = [*_terms(options, problems)], [*_teachers(options, device, problems)]
    val, test = ([*_image_sets(options, phase, problems)] for phase in ("val", "test"))
    return Inputs(state, network, loader, terms, teachers, val, test, read)


def open_networks(options: TrainOptions) -> tuple[SRNetwork, list[Teacher]]:
    """Open student, with pretrained weights if there are any, and teachers alone, on the CPU.

    Raises:
        InputError: with a line for each that cannot be used.
    """
    problems = Problems()
    torch.manual_seed(options.manual_seed)
    network = problems.of("network_g", lambda: _network(options))
    if network is not None and options.path.pretrained is not None:
        problems.of(PRETRAINED, partial(load_pretrained, options, network))
    teachers = [*_teachers(options, torch.device("cpu"), problems)]
    problems.check()
    assert network is not None  # noqa: S101 - otherwise there is a problem
    return network, teachers


def load_pretrained(options: TrainOptions, network: SRNetwork) -> list[str]:
    """Load pretrained weights into the student; return a line for each that was not loaded.

    Raises:
        InputError: they cannot be used.
    """
    given = options.path
    try:
        found = load_weights(network, str(given.pretrained), key=given.param_key_g, strict=given.strict)
    except MisfitError as error:
        raise InputError(f"{error}, or set strict_load_g: false to take what fits", code=error.code) from error
    return [f"{PRETRAINED}: not loaded: {line}" for line in found]


def open_loader(options: TrainOptions, planes: Mapping[str, Sequence[str]] = NO_PLANES) -> TrainLoader:
    """Open the training images, with further planes of the store, see `open_images`."""
    return _loader(options, open_images(options.datasets.train, options.scale, planes))


def state_option(auto_resume: bool) -> str:
    """The option that names the state to resume from."""
    return "--auto_resume" if auto_resume else "path.resume_state"


def _loader(options: TrainOptions, images: ImagePairs) -> TrainLoader:
    data, accumulation = options.datasets.train, options.train.accumulation
    return TrainLoader(data, images, seed=options.manual_seed, accumulation=accumulation)


def _network(options: TrainOptions) -> SRNetwork:
    network: SRNetwork = ARCHS.build(options.network_g.spec())
    if network.info.scale != options.scale:
        raise InputError(
            f"{options.network_g.type} enlarges x{network.info.scale}, but scale is {options.scale}",
            code="model.scale-mismatch",
        )
    return network


def _terms(options: TrainOptions, problems: Problems) -> Iterator[LossTerm]:
    for name, given in options.train.losses().items():
        loss = problems.of(f"train.{GROUND_TRUTH_OPTIONS[name]}", partial(LOSSES.build, given.spec()))
        if loss is not None:
            weight = weight_schedule(given.loss_weight, total=options.train.total_iter)
            yield OutputTerm(loss, weight=weight, name=name)


def _teachers(options: TrainOptions, device: torch.device, problems: Problems) -> Iterator[Teacher]:
    channels = 1 if options.datasets.train.color == "y" else 3
    for number, given in enumerate(options.teachers()):
        place = f"network_t.{number}" if isinstance(options.network_t, list) else "network_t"
        opening = partial(open_teacher, given, scale=options.scale, num_in_ch=channels, device=device)
        teacher = problems.of(place, partial(opening, precision=options.train.precision))
        if teacher is not None:
            yield teacher


def _image_sets(options: TrainOptions, phase: Literal["val", "test"], problems: Problems) -> Iterator[ImageSet]:
    for key, dataset in options.datasets.named(phase).items():
        images = problems.of(f"datasets.{key}", partial(_image_set, dataset, options))
        if images is not None:
            yield images


def _image_set(dataset: DatasetOptions, options: TrainOptions) -> ImageSet:
    images = find_set(dataset.source(options.scale), options.scale)
    protocol = options.protocol() or protocol_of(images)
    for pair in images.pairs:
        hr, _ = images.load(pair)
        if not is_measurable(hr.shape[:2], options.scale, protocol):
            raise InputError(
                f"{pair.hr}: {hr.shape[1]}x{hr.shape[0]} px are too few to be measured; remove it",
                code="image.too-small",
            )
    return images
