"""Options of training data: `datasets.train` of an option file, in BasicSR's keys."""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options, UserPath
from imdn_kd.data.degradation.schema import Step


class IoBackend(Options):
    """`io_backend` of a data set: image files, or LMDB."""

    type: Literal["disk", "lmdb"] = "disk"


class PatchStage(NamedTuple):
    """A stage of progressive training: first iteration, side of the patches in `gt` (px), batch size per device."""

    start: int
    gt_size: int
    batch_size: int


WANTED = {"StoreDataset": ("dataroot",), "PairedImageDataset": ("dataroot_gt", "dataroot_lq")}
"""The paths that the data sets of this package need, by their `type`."""


class TrainDataOptions(Options):
    """`datasets.train`: training data in BasicSR's keys, for its own data sets and for stores.

    Attributes:
        name: shown in messages.
        type: `PairedImageDataset` (BasicSR's folders, meta-info files and LMDBs), `StoreDataset`, or a data set of your
            own, from `imports`.
        options: what a data set of your own takes beside `scale`.
        dataroot: folder of the store.
        dataroot_gt: folder or LMDB of the HR images.
        dataroot_lq: folder or LMDB of the LR images.
        meta_info_file: file with the names of the images to use, one per line; default: all.
        filename_tmpl: name of the LR image of HR image `{}`, less the suffix.
        io_backend: `disk` or `lmdb`.
        degradation: steps that make the LR patches from the HR images while training, as `prepare` has them; LR images
            are not read then.
        degradation_versions: how many degraded versions of each image are made, once, into the store: 4 to 8. Patches
            are of one of them, and `distill.cache` can keep what teachers make of them. 0: each patch is degraded anew.
        gt_size: side of the HR patches, px.
        gt_sizes: instead, sides of the stages of progressive training, as in Restormer (https://arxiv.org/abs/2111.09881).
        mini_batch_sizes: batch size of each stage.
        iters: iterations of each stage; the last one lasts until the end.
        use_hflip: mirror half of the patches.
        use_flip: older name of `use_hflip`.
        use_rot: rotate patches by multiples of 90 degrees.
        use_channel_shuffle: permute R, G and B.
        use_inversion: invert half of the patches.
        sampling: `image`: sample images uniformly; `area`: sample uniformly by area.
        sharpness: candidate crops per patch; one is sampled in proportion to sharpness (1 disables).
        augment_on: where patches are augmented, `worker` (CPU threads) or `device`.
        color: `y` trains a network of one channel on Y.
        batch_size_per_gpu: batch size on each device.
        num_worker_per_gpu: threads that cut patches ahead, for each device (default: none for a store on the CPU, one
            for a store on a GPU, four where images are decoded or degraded).
        pin_memory: use page-locked memory, for faster copies to a GPU.
        dataset_enlarge_ratio: accepted for compatibility with BasicSR; there are no epochs here.
        use_shuffle: accepted for compatibility; the order is always random.
        prefetch_mode: accepted for compatibility; workers always read ahead.
        num_prefetch_queue: batches that each worker prefetches.
        persistent_workers: accepted for compatibility; workers live as long as the run.
    """

    name: str = "train"
    type: str
    options: dict[str, Any] = Field(default_factory=dict)
    dataroot: UserPath | None = None
    dataroot_gt: UserPath | None = None
    dataroot_lq: UserPath | None = None
    meta_info_file: UserPath | None = None
    filename_tmpl: str | None = None
    io_backend: IoBackend = IoBackend()
    degradation: list[Step] = Field(default_factory=list)
    degradation_versions: Integer = Field(0, ge=0, le=64)
    gt_size: Integer = Field(ge=1)
    gt_sizes: list[Integer] = Field(default_factory=list)
    mini_batch_sizes: list[Integer] = Field(default_factory=list)
    iters: list[Integer] = Field(default_factory=list)
    use_hflip: bool = True
    use_flip: bool | None = None
    use_rot: bool = True
    use_channel_shuffle: bool = False
    use_inversion: bool = False
    sampling: Literal["image", "area"] = "image"
    sharpness: Integer = Field(1, ge=1)
    augment_on: Literal["worker", "device"] = "worker"
    color: Literal["y"] | None = None
    batch_size_per_gpu: Integer = Field(ge=1)
    num_worker_per_gpu: Integer | None = Field(None, ge=0)
    pin_memory: bool = True
    dataset_enlarge_ratio: Integer | Literal["auto"] = 1
    use_shuffle: Literal[True] = True
    prefetch_mode: Literal["cpu", "cuda"] | None = None
    num_prefetch_queue: Integer = Field(2, ge=1)
    persistent_workers: bool | None = None

    @model_validator(mode="after")
    def _has_data(self) -> TrainDataOptions:
        wanted = WANTED.get(self.type, ())
        if self.degradation:
            for key in ("dataroot_lq", "filename_tmpl"):
                if getattr(self, key) is not None:
                    raise PydanticCustomError("no_effect", f"{key} is not read with a degradation; leave one out")
            wanted = tuple(key for key in wanted if key != "dataroot_lq")
        if self.degradation_versions and not self.degradation:
            raise PydanticCustomError("no_effect", "degradation_versions needs a degradation; give one")
        if self.degradation_versions and self.type != "StoreDataset":
            raise PydanticCustomError("no_effect", "degradation_versions are kept in a store; use a StoreDataset")
        if wanted and self.options:
            raise PydanticCustomError("no_effect", f"options is for data sets of your own, not for {self.type}")
        for key in wanted:
            if getattr(self, key) is None:
                raise PydanticCustomError("no_data", f"{self.type} needs {key}")
        return self

    @model_validator(mode="after")
    def _flips_agree(self) -> TrainDataOptions:
        if {"use_flip", "use_hflip"} <= self.model_fields_set:
            raise PydanticCustomError("twice", "use_flip is the older name of use_hflip; give use_hflip alone")
        return self

    @model_validator(mode="after")
    def _stages_agree(self) -> TrainDataOptions:
        if not len(self.gt_sizes) == len(self.mini_batch_sizes) == len(self.iters):
            raise PydanticCustomError("stages", "gt_sizes, mini_batch_sizes and iters must be of one length")
        if min((1, *self.gt_sizes, *self.mini_batch_sizes, *self.iters)) < 1:
            raise PydanticCustomError("stages", "gt_sizes, mini_batch_sizes and iters must be 1 or more")
        return self

    def stages(self) -> list[PatchStage]:
        """The stages in order, the first from iteration 0."""
        if not self.gt_sizes:
            return [PatchStage(0, self.gt_size, self.batch_size_per_gpu)]
        starts = itertools.accumulate(self.iters[:-1], initial=0)
        return list(itertools.starmap(PatchStage, zip(starts, self.gt_sizes, self.mini_batch_sizes, strict=True)))
