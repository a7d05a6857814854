"""Scores of the network in training, by the benchmark's protocol and through `Upscaler`, as users will run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import gather_object

from imdn_kd.archs.network import SRNetwork
from imdn_kd.data.image_sets import ImageSet
from imdn_kd.evaluation.benchmark import ImageScore, SetScore, Task, contestant, score
from imdn_kd.evaluation.metrics import Protocol
from imdn_kd.inference.upscaler import Upscaler

BENCHMARKS = ("set5", "set14", "b100", "bsd100", "bsds100", "urban100", "manga109")
"""Names, in small letters, of the data sets that results are reported on."""


def validate(
    network: SRNetwork,
    sets: Sequence[ImageSet],
    accelerator: Accelerator,
    *,
    name: str,
    protocol: Protocol,
    save: Path | None = None,
    on_image: Callable[[int], None] | None = None,
) -> list[SetScore]:
    """Score a network on data sets, with the images spread over all processes, in fp32.

    Args:
        network: with the weights to be judged; it is copied.
        sets: all for the factor of the network.
        accelerator: knows the processes; each of them must call this.
        name: of the network.
        protocol: how images are measured.
        save: folder for the enlarged images.
        on_image: called after each image of this process.

    Returns:
        One score for each set, the same in every process.

    Raises:
        InputError: an image cannot be used any more, or a result not be written.
    """
    model = contestant(Upscaler(network, device=accelerator.device, precision="fp32"), name, sets[0].scale)
    scores = []
    for images in sets:
        share = dataclasses.replace(images, pairs=images.pairs[accelerator.process_index :: accelerator.num_processes])
        mine: tuple[ImageScore, ...] = ()
        if share.pairs:
            mine = score(Task(model, share), protocol=protocol, save=save, on_image=on_image).images
        everyones: list[ImageScore] = gather_object(list(mine))
        by_name = {image.name: image for image in everyones}
        ordered = tuple(by_name[pair.name] for pair in images.pairs)
        scores.append(SetScore(name, images.scale, images.name, images.lr_source, model.run, protocol, images=ordered))
    return scores


def reported_on(images: ImageSet, tested: Sequence[ImageSet]) -> bool:
    """Whether a data set is one that results are reported on: a published benchmark, or one of `tested`."""
    folders = {pair.hr.resolve().parent for pair in images.pairs[:1]}
    same = any(
        images.name == other.name or folders & {pair.hr.resolve().parent for pair in other.pairs[:1]}
        for other in tested
    )
    parts = {part.lower() for folder in folders for part in folder.parts[-2:]}
    return same or images.name.lower() in BENCHMARKS or not parts.isdisjoint(BENCHMARKS)
