"""The third pass over an option file: whether what it names fits together."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial

from imdn_kd.archs.base import ModelInfo, SRNetwork
from imdn_kd.data.base import ImagePairs
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.data.store import StoreDataset
from imdn_kd.distill.builder import build_distiller
from imdn_kd.distill.distiller import Distiller
from imdn_kd.distill.teacher import Teacher
from imdn_kd.errors import InputError, Problems
from imdn_kd.training.loader import degraded_versions
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.map_plan import plan_maps
from imdn_kd.training.setup.open_inputs import PRETRAINED, Inputs, load_pretrained, state_option
from imdn_kd.training.setup.resume import check_state, check_trainable_modules
from imdn_kd.training.setup.teacher_cache import TeacherCache
from imdn_kd.training.validation import reported_on


def compare_inputs(
    options: TrainOptions, inputs: Inputs, folder: RunFolder, problems: Problems, *, auto_resume: bool
) -> tuple[Distiller | None, TeacherCache | None, list[str]]:
    """Compare networks, images and the state with each other, and load pretrained weights into the student.

    Args:
        options: of the run.
        inputs: what these name.
        folder: of the run.
        problems: takes what is wrong.
        auto_resume: whether the state is the newest one of the run.

    Returns:
        The distiller (None if something is wrong), the teachers' cache if one is wanted, and a line for each weight
        that was not loaded.
    """
    state, network, loader = inputs.state, inputs.network, inputs.loader
    fits, left = Problems(), list[str]()
    distiller, cache = None, None
    opened = len(inputs.terms) == len(options.train.losses()) and len(inputs.teachers) == len(options.teachers())
    if state is not None:
        with fits.at(state_option(auto_resume)):
            check_state(state, options, folder)
    if network is not None:
        fits.add(_input_sizes(options, network.info), code="train.input-size")
    if options.distill is not None and options.distill.cache and loader is not None and opened:
        cache = fits.of("distill.cache", partial(_teacher_cache, options, loader.images, inputs.teachers))
    if network is not None and loader is not None and opened and not fits:
        distiller = fits.of("distill", partial(_distiller, options, network, inputs, cache))
    if cache is not None and distiller is not None:
        plan_maps(options, distiller, cache)
        fits.of("distill.cache", partial(_check_writable, cache))
    if state is not None and distiller is not None:
        fits.add(check_trainable_modules(state, options, distiller.trainable_modules()), code="train.state-mismatch")
    if state is None and network is not None and options.path.pretrained is not None:
        left = fits.of(PRETRAINED, partial(load_pretrained, options, network)) or []
    fits.add(_selection(options, inputs.val, inputs.test), code="train.select-on-benchmark")
    problems.extend(fits)
    return distiller, cache, left


def _input_sizes(options: TrainOptions, info: ModelInfo) -> Iterator[str]:
    channels = 1 if options.datasets.train.color == "y" else 3
    if info.num_in_ch != channels:
        yield f"network_g: takes images of {info.num_in_ch} channels, but training images have {channels}"
    for stage in options.datasets.train.stages():
        side, rest = divmod(stage.gt_size, options.scale)
        if rest:
            continue  # reported with the data
        if side % info.size_multiple or side < info.min_size:
            needed = f"at least {info.min_size} px and a multiple of {info.size_multiple}"
            yield f"datasets.train.gt_size: {stage.gt_size} gives inputs of {side} px, but the network needs {needed}"


def _teacher_cache(options: TrainOptions, images: ImagePairs, teachers: Sequence[Teacher]) -> TeacherCache:
    if not isinstance(images, StoreDataset):
        raise InputError(
            "the teacher's outputs are kept in a store; make one with imdn-kd prepare, or leave this out",
            code="train.cache-needs-store",
        )
    versions = degraded_versions(options.datasets.train, options.scale)
    if options.datasets.train.degradation and versions is None:
        raise InputError(
            "the teacher's outputs for inputs that are degraded anew each time cannot be kept; leave this out, or "
            "set datasets.train.degradation_versions, as 4",
            code="train.cache-degradation",
        )
    if options.datasets.train.color == "y":
        raise InputError("a store holds RGB, but color: y trains on Y; leave this out", code="train.cache-needs-rgb")
    sources = () if versions is None else tuple(versions.planes)
    return TeacherCache(images.store, options.scale, teachers, options.teachers(), sources=sources)


def _check_writable(cache: TeacherCache) -> None:
    if not cache.is_there and not os.access(cache.path, os.W_OK):
        raise InputError(
            f"{cache.path}: cannot be written; copy the store to where it can be, or leave this out",
            code="store.cannot-write",
        )


def _distiller(options: TrainOptions, network: SRNetwork, inputs: Inputs, cache: TeacherCache | None) -> Distiller:
    if options.distill is None:
        return Distiller(network, None, inputs.terms)
    distiller = build_distiller(
        options.distill,
        network,
        inputs.teachers,
        terms=inputs.terms,
        total=options.train.total_iter,
        sides=[*{stage.gt_size // options.scale for stage in options.datasets.train.stages()}],
        cache_key="gt" if options.distill.replace_by_gt else None if cache is None else cache.key,
    )
    online = [term.name for term in distiller.terms if term.needs_online_teacher]
    if options.distill.replace_by_gt and online:
        raise InputError(
            f"replace_by_gt: the ground truth has no features for {', '.join(online)}; leave out these terms",
            code="distill.gt-has-no-features",
        )
    return distiller


def _selection(options: TrainOptions, val: Sequence[ImageSet], test: Sequence[ImageSet]) -> Iterator[str]:
    if options.val is None or options.val.select_on_benchmark:
        return
    for name in options.val.selection:
        chosen = next((images for images in val if images.name == name), None)
        if chosen is not None and reported_on(chosen, test):
            yield (
                f"val.select_on: {name} is a data set that results are reported on, and weights selected on it would "
                "flatter them; select on other photographs, or set val.select_on_benchmark: true"
            )
