"""Training batches on their device, in the sizes that the option file asks for at each update."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

import torch

from imdn_kd.data.base import ImagePairs
from imdn_kd.data.patches import Batch, Patches, to_luma, to_training
from imdn_kd.data.schema import PatchStage, TrainDataOptions

DECODING_THREADS = 4


class Batches:
    """The batches of all updates, of a process that trains alone; which ones depends on the options and the seed.

    Args:
        options: what is cut from, in which sizes.
        images: opened.
        seed: of the patches.
        accumulation: batches for an update.

    Raises:
        InputError: sizes that do not fit the images or the factor.
    """

    def __init__(
        self,
        options: TrainDataOptions,
        images: ImagePairs,
        *,
        seed: int,
        accumulation: int = 1,
    ) -> None:
        self.images = images
        self._options = options
        self._accumulation = accumulation
        self._stages: list[tuple[PatchStage, Patches]] = [
            (stage, options.patches(images, stage, seed=seed)) for stage in options.stages()
        ]

    def share(self, rank: int, world_size: int) -> Batches:
        """Return the batches of one of several processes."""
        other = copy.copy(self)
        other._stages = [(stage, patches.share(rank, world_size)) for stage, patches in self._stages]
        return other

    def updates(self, start: int, stop: int, device: torch.device) -> Iterator[list[Batch]]:
        """Yield the batches of the updates `start` to `stop` - 1: for each, as many as are accumulated.

        All planes are floats in [0, 1], N x C x h x w, channels last.
        """
        ends = [stage.start for stage, _ in self._stages[1:]] + [stop]
        for (stage, patches), end in zip(self._stages, ends, strict=True):
            first, last = max(start, stage.start), min(stop, end)
            if first >= last:
                continue
            loader = patches.loader(
                first * self._accumulation,
                last * self._accumulation,
                workers=self._workers(device),
                pin_memory=self._options.pin_memory and device.type == "cuda",
                prefetch=self._options.num_prefetch_queue,
            )
            for _ in range(first, last):
                yield [self._ready(batch, device) for batch in itertools.islice(loader, self._accumulation)]

    def _ready(self, batch: Batch, device: torch.device) -> Batch:
        planes = to_training(batch, device)
        return {name: to_luma(images) for name, images in planes.items()} if self._options.color == "y" else planes

    def _workers(self, device: torch.device) -> int:
        if self._options.num_worker_per_gpu is not None:
            return self._options.num_worker_per_gpu
        if self._options.type != "StoreDataset":
            return DECODING_THREADS
        # Cutting from a store takes a tenth of a millisecond a patch: on the CPU, less than a thread would cost.
        return 0 if device.type == "cpu" else 1
