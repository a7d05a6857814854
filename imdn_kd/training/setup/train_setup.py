"""From an option file to all that a run needs, in three passes; everything that is wrong is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from imdn_kd.archs.base import SRNetwork
from imdn_kd.archs.quantize import quantizable
from imdn_kd.archs.reparam import can_expand
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.data.degraded_versions import DegradedVersions
from imdn_kd.distill.distiller import Distiller
from imdn_kd.errors import Problems
from imdn_kd.training import distributed as launch
from imdn_kd.training.checkpoint import State
from imdn_kd.training.loader import TrainLoader, degraded_versions
from imdn_kd.training.references import TeacherScore
from imdn_kd.training.run_folder import RunFolder
from imdn_kd.training.schedule import Factor
from imdn_kd.training.schema import TrainOptions
from imdn_kd.training.setup.compare import compare_inputs
from imdn_kd.training.setup.open_inputs import ReadImages, open_inputs, open_loader
from imdn_kd.training.setup.resume import changes
from imdn_kd.training.setup.teacher_cache import TeacherCache
from imdn_kd.training.setup.validate import validate_options
from imdn_kd.training.setup.warnings import config_warnings, device_warnings, distill_warnings


@dataclass
class TrainSetup:
    """What a run is made of.

    Attributes:
        network: with its first weights, on the CPU.
        loader: training loader.
        distiller: the network with its teachers and loss terms.
        versions: the degraded versions of the training images that are to be in the store; None if they are not wanted.
        cache: the results of teachers that are to be in the store; None if they are not wanted.
        lr_schedules: of each trainable module, by name.
        val: data sets that are scored during training.
        test: data sets that are scored at the end.
        state: what is resumed from; None to begin.
        warnings: what the user should know of the options, a line each.
        teacher: the score of the teachers, once they were asked.
    """

    network: SRNetwork
    loader: TrainLoader
    distiller: Distiller
    lr_schedules: Mapping[str, Factor]
    val: list[ImageSet]
    test: list[ImageSet]
    versions: DegradedVersions | None = None
    cache: TeacherCache | None = None
    state: State | None = None
    warnings: list[str] = field(default_factory=list)
    teacher: TeacherScore | None = None


def build_setup(
    options: TrainOptions,
    *,
    device: torch.device,
    root: Path,
    auto_resume: bool = False,
    read_images: ReadImages | None = None,
) -> TrainSetup:
    """Open everything that the options name.

    Args:
        options: of the run.
        device: where it is to run.
        root: folder of all runs.
        auto_resume: resume from the newest state of the run, if there is one.
        read_images: see `open_inputs`.

    Raises:
        InputError: with a line for everything that is wrong.
    """
    problems, folder = Problems(), RunFolder(root / options.name)
    lr_schedules = validate_options(options, device, problems)
    inputs = open_inputs(options, folder, device, problems, auto_resume=auto_resume, read_images=read_images)
    distiller, cache, not_loaded = compare_inputs(options, inputs, folder, problems, auto_resume=auto_resume)
    problems.check()
    network, loader, state = inputs.network, inputs.loader, inputs.state
    # Otherwise there is a problem.
    assert network is not None and loader is not None and distiller is not None  # noqa: S101
    if cache is not None and cache.is_there:
        loader = open_loader(options, cache.names())
    warnings = [*config_warnings(options, launch.world_size()), *distill_warnings(options, distiller)]
    warnings += [] if cache is None else cache.notes
    if options.train.reparam is not None and not can_expand(network):
        warnings.append("train.reparam: no effect, since the network has no 3x3 convolutions")
    if options.train.quantize is not None:
        with problems.at("train.quantize.float_layers"):
            quantizable(network, options.train.quantize.float_layers)
        problems.check()
    warnings += [*not_loaded, *(() if state is None else changes(state, options)), *device_warnings(options, device)]
    if inputs.images_read is not None:
        warnings.append(f"datasets.train: {inputs.images_read}")
    versions = degraded_versions(options.datasets.train, options.scale)
    return TrainSetup(
        network, loader, distiller, lr_schedules, inputs.val, inputs.test, versions, cache, state, warnings
    )
