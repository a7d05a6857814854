"""Scores of the network in training, by the benchmark's protocol and through `Upscaler`, as users will run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from accelerate import Accelerator

from imdn_kd.archs.base import SRNetwork
from imdn_kd.data.benchmark_sets import ImageSet
from imdn_kd.evaluation.benchmark import (
    EvalTask,
    ImageScore,
    SetScore,
    Upsampler,
    make_upsampler,
    protocol_of,
    score,
)
from imdn_kd.evaluation.protocol import Protocol
from imdn_kd.inference.upscaler import Upscaler
from imdn_kd.training import distributed as launch

BENCHMARKS = ("set5", "set14", "b100", "bsd100", "bsds100", "urban100", "manga109")
"""Names, in small letters, of the data sets that results are reported on."""


class StoppedError(Exception):
    """Validation is not to be finished."""


def validate(
    network: SRNetwork,
    sets: Sequence[ImageSet],
    accelerator: Accelerator,
    *,
    name: str,
    protocol: Protocol | None,
    save: Path | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[SetScore]:
    """Score a network on data sets, with the images spread over all processes, in fp32.

    Args:
        network: with the weights to be judged; it is copied.
        sets: all for the factor of the network.
        accelerator: knows the processes; each of them must call this.
        name: of the network.
        protocol: how images are measured (default: `protocol_of` each set).
        save: folder for the enlarged images.
        on_image: called after each image of this process; it may raise `StoppedError`.

    Returns:
        One score for each set, the same in every process.

    Raises:
        InputError: an image cannot be used any more, or a result not be written; see `launch.run_on_all_ranks`.
        StoppedError: in all processes if it was raised in one; the others have done their share by then.
    """
    model = make_upsampler(
        Upscaler(network, device=accelerator.device, precision="fp32", engine="torch"), name, sets[0].scale
    )
    return score_sets(model, sets, accelerator, protocol=protocol, save=save, on_image=on_image)


def score_sets(
    model: Upsampler,
    sets: Sequence[ImageSet],
    accelerator: Accelerator,
    *,
    protocol: Protocol | None,
    save: Path | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[SetScore]:
    """Score whatever enlarges images; arguments, result and errors as in `validate`."""
    scores = []
    for images in sets:
        mine = images.pairs[accelerator.process_index :: accelerator.num_processes]
        measured_by = protocol or protocol_of(images)
        task = EvalTask(model, dataclasses.replace(images, pairs=mine))
        shares = launch.all_gather_object(launch.run_on_all_ranks(partial(_share, task, measured_by, save, on_image)))
        finished = [share for share in shares if share is not None]
        if len(finished) < len(shares):
            raise StoppedError
        by_name = {image.name: image for share in finished for image in share}
        ordered = tuple(by_name[pair.name] for pair in images.pairs)
        described = (model.name, images.scale, images.name, images.lr_source, model.run)
        scores.append(SetScore(*described, measured_by, ordered))
    return scores


def _share(
    task: EvalTask, protocol: Protocol, save: Path | None, on_image: Callable[[int], None] | None
) -> tuple[ImageScore, ...] | None:
    """The scores of the images of this process; None if it was stopped."""
    if not task.images.pairs:
        return ()
    try:
        return score(task, protocol=protocol, save=save, on_image=on_image).images
    except StoppedError:
        return None


def reported_on(images: ImageSet, tested: Sequence[ImageSet]) -> bool:
    """Whether a data set is one that results are reported on: a published benchmark, or one of `tested`."""
    folders = {pair.hr.resolve().parent for pair in images.pairs[:1]}
    same = any(
        images.name == other.name or folders & {pair.hr.resolve().parent for pair in other.pairs[:1]}
        for other in tested
    )
    parts = {part.lower() for folder in folders for part in folder.parts[-2:]}
    return same or images.name.lower() in BENCHMARKS or not parts.isdisjoint(BENCHMARKS)
