"""Training batches on their device, in the sizes that the option file asks for at each iteration."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from imdn_kd.data.base import ImagePairs, exact_scale
from imdn_kd.data.degradation.schema import check_steps
from imdn_kd.data.degraded_versions import DegradedVersions
from imdn_kd.data.hr_images import HrImages
from imdn_kd.data.patches import Batch, Patches, to_luma, to_training
from imdn_kd.data.schema import PatchStage, TrainDataOptions
from imdn_kd.registry import DATASETS

DECODING_THREADS = 4


NO_PLANES: Mapping[str, Sequence[str]] = MappingProxyType({})


def open_images(options: TrainDataOptions, scale: float, planes: Mapping[str, Sequence[str]] = NO_PLANES) -> ImagePairs:
    """Open the training images for a scale.

    Args:
        options: where the images are.
        scale: the factor.
        planes: further planes of a store, such as a teacher's output, by the name that batches have them under: one, or
            one for each degraded version.

    Raises:
        InputError: the images are not there, or not for this scale.
    """
    spec: dict[str, Any] = {"type": options.type, "scale": scale}
    if options.type == "StoreDataset":
        spec |= {"dataroot": options.dataroot, "planes": tuple(planes), "hr_only": bool(options.degradation)}
        versions = degraded_versions(options, scale)
        if versions is not None and versions.is_there:
            names = enumerate(versions.planes)
            del spec["planes"], spec["hr_only"]
            spec["versions"] = [{"lq": lq, **{key: of[number] for key, of in planes.items()}} for number, lq in names]
    elif options.type != "PairedImageDataset":
        spec |= options.options
    else:
        spec |= {"dataroot_gt": options.dataroot_gt, "dataroot_lq": options.dataroot_lq}
        spec |= {"meta_info_file": options.meta_info_file, "io_backend": {"type": options.io_backend.type}}
        spec |= {} if options.filename_tmpl is None else {"filename_tmpl": options.filename_tmpl}
        if options.degradation:
            del spec["type"], spec["dataroot_lq"]
            return HrImages(**spec)
    images: ImagePairs = DATASETS.build(spec)
    return images


def degraded_versions(options: TrainDataOptions, scale: float) -> DegradedVersions | None:
    """The degraded versions of the images that are asked for, made or not; None if none are."""
    if not options.degradation_versions or options.dataroot is None:
        return None
    exact = exact_scale(scale)
    check_steps(options.degradation, downscales=exact > 1)
    return DegradedVersions(options.dataroot, exact, options.degradation, options.degradation_versions)


def cut_patches(options: TrainDataOptions, images: ImagePairs, stage: PatchStage, *, seed: int) -> Patches:
    """Return the patches that the options ask for in one stage of progressive training."""
    return Patches(
        images,
        gt_size=stage.gt_size,
        batch_size=stage.batch_size,
        seed=seed,
        sampling=options.sampling,
        sharpness=options.sharpness,
        use_hflip=options.use_hflip if options.use_flip is None else options.use_flip,
        use_rot=options.use_rot,
        use_channel_shuffle=options.use_channel_shuffle,
        use_inversion=options.use_inversion,
        augment_on=options.augment_on,
        degradation=() if _versions_are_made(options, images) else options.degradation,
    )


def _versions_are_made(options: TrainDataOptions, images: ImagePairs) -> bool:
    return options.degradation_versions > 0 and "lq" in images.planes


class TrainLoader:
    """The batches of all iterations, of a process that trains alone; which ones depends on the options and the seed.

    Args:
        options: what is cut from, in which sizes.
        images: opened.
        seed: of the patches.
        accumulation: batches for an iteration.

    Raises:
        InputError: sizes that do not fit the images or the factor.

    Attributes:
        images: as given.
        degradation: steps that make the LR patches; empty if `images` have them.
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
        self.degradation = options.degradation
        self._options = options
        self._accumulation = accumulation
        self._stages: list[tuple[PatchStage, Patches]] = [
            (stage, cut_patches(options, images, stage, seed=seed)) for stage in options.stages()
        ]

    def share(self, rank: int, world_size: int) -> TrainLoader:
        """Return the batches of one of several processes."""
        other = copy.copy(self)
        other._stages = [(stage, patches.share(rank, world_size)) for stage, patches in self._stages]
        return other

    def batches(self, start: int, stop: int, device: torch.device) -> Iterator[list[Batch]]:
        """Yield the batches of the iterations `start` to `stop` - 1: for each, as many as are accumulated.

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
        degrades = self._options.degradation and not _versions_are_made(self._options, self.images)
        if self._options.type != "StoreDataset" or degrades:
            return DECODING_THREADS
        # Cutting from a store takes a tenth of a millisecond a patch: on the CPU, less than a thread would cost.
        return 0 if device.type == "cpu" else 1
