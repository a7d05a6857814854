"""Option files about data: what `imdn-kd prepare` makes, and the training data of BasicSR's option files."""

from __future__ import annotations

import difflib
import itertools
from fractions import Fraction
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from imdn_kd.config.options import Integer, Options, UserPath
from imdn_kd.data.base import ImagePairs, exact_scale
from imdn_kd.data.patches import Patches
from imdn_kd.data.preparation.degradations import Bicubic, Step
from imdn_kd.data.preparation.sources.catalogue import NAMED_SETS
from imdn_kd.data.preparation.sources.sources import SAMPLE
from imdn_kd.data.preparation.writers import Format
from imdn_kd.errors import InputError
from imdn_kd.registry import DATASETS


def _check_scale(scale: float) -> float:
    try:
        exact_scale(scale)
    except InputError as error:
        raise PydanticCustomError("scale", str(error)) from error
    return scale


Scale = Annotated[float, AfterValidator(_check_scale)]

PATH_SOURCES = ("folder", "lmdb", "store")


class PrepareOptions(Options):
    """What `imdn-kd prepare` is to make.

    Attributes:
        source: a data set by name, or the kind of what is at `path`: `folder` (or archive) of images, `lmdb`, `store`.
        path: of that folder, archive, LMDB or store.
        places: folders where the files of a named data set are looked for first.
        scale: factors; those of the given images if these are taken, otherwise by default 2, 3 and 4.
        degradation: `bicubic` (MATLAB's), `given` (images that come with the originals), or a list of steps; by default
            `bicubic`, but with `lr` and for a store `given`.
        lr: folder, archive or LMDB of the given images of a factor.
        exclude_like: folders of benchmarks whose images must not be trained on.
        format: `store`, `folder` or `lmdb`; by default what suits the data set.
        name: of the data set; by default that of the source.
        output: where it goes, instead of `NAME.store`, `NAME` or `NAME_lmdb` in the folder of all data sets.
        manual_seed: of the random numbers in the steps.
    """

    source: str
    path: str | None = None
    places: list[str] = Field(default_factory=list)
    scale: list[Scale] = Field(default_factory=list)
    degradation: Literal["bicubic", "given"] | list[Annotated[Step, Field(discriminator="type")]] | None = None
    lr: dict[Scale, str] = Field(default_factory=dict)
    exclude_like: list[str] = Field(default_factory=list)
    format: Format | None = None
    name: str | None = None
    output: str | None = None
    manual_seed: Integer = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits_together(self) -> PrepareOptions:
        if isinstance(self.degradation, list):
            shrinks = sum(isinstance(step, Bicubic) for step in self.degradation)
            if shrinks > 1 or (not shrinks and self.scales() != (Fraction(1),)):
                raise PydanticCustomError(
                    "steps", "degradation needs one step of type bicubic (none if the scale is 1), where it shrinks"
                )
        known = (*PATH_SOURCES, *SAMPLE, *NAMED_SETS)
        if self.source not in known:
            near = difflib.get_close_matches(self.source, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise PydanticCustomError("source", f"no data set is called {self.source!r}; {hint}")
        if (self.source in PATH_SOURCES) != (self.path is not None):
            raise PydanticCustomError("path", f"path is for the sources {', '.join(PATH_SOURCES)}, and these need one")
        if self.lr and self.source not in ("folder", "lmdb"):
            raise PydanticCustomError("lr", "lr is for the sources folder and lmdb")
        if self.places and self.source not in NAMED_SETS:
            raise PydanticCustomError("places", "places (--from) is for data sets with a name, and not for this source")
        if self.name is not None and (not self.name or self.name in (".", "..") or set(self.name) & set("/\\\0")):
            raise PydanticCustomError("name", "name is to be that of a folder, without slashes")
        if self.degradation == "given" and self.source in SAMPLE:
            raise PydanticCustomError("given", f"{self.source} has no low-quality images of its own; have them made")
        if self.lr and self.degradation not in (None, "given"):
            raise PydanticCustomError("lr", "lr names given images, so degradation must be `given`, or left out")
        return self

    def given_places(self) -> dict[Fraction, str]:
        """Where the given images of a factor lie, if it is said."""
        return {exact_scale(scale): place for scale, place in self.lr.items()}

    def scales(self) -> tuple[Fraction, ...]:
        """The factors as fractions, without repetition."""
        return tuple(sorted({exact_scale(scale) for scale in (*self.scale, *self.lr)}))

    def steps(self) -> tuple[Step, ...] | None:
        """The steps that make the low-quality images; None if these are given."""
        if self.lr or self.degradation == "given" or (self.degradation is None and self.source == "store"):
            return None
        return tuple(self.degradation) if isinstance(self.degradation, list) else (Bicubic(),)


class IoBackend(Options):
    """`io_backend` of a data set: image files, or LMDB."""

    type: Literal["disk", "lmdb"] = "disk"


class PatchStage(NamedTuple):
    """Which patches are cut from an update on: their side in `gt`, px, and how many for each device."""

    start: int
    gt_size: int
    batch_size: int


class TrainDataOptions(Options):
    """`datasets.train`, in the words of BasicSR, for its own data and for stores.

    Attributes:
        name: for messages.
        type: `PairedImageDataset` (BasicSR's folders, meta-info files and LMDBs) or `StoreDataset`.
        dataroot: folder of the store.
        dataroot_gt: folder or LMDB of the originals.
        dataroot_lq: folder or LMDB of the low-quality images.
        meta_info_file: names of the images to take, one a line.
        filename_tmpl: name of the low-quality image of original `{}`, less the suffix.
        io_backend: `disk` or `lmdb`.
        gt_size: side of the patches of the original, px.
        gt_sizes: instead, sides that follow each other (progressive training), as in Restormer's option files.
        mini_batch_sizes: the batch size for each of them.
        iters: for how many updates each is used; the last one until the end.
        use_hflip: mirror half of the patches.
        use_flip: older name of `use_hflip`.
        use_rot: turn patches by multiples of 90 degrees.
        use_channel_shuffle: put R, G and B in any order.
        use_inversion: show half of the patches as negatives.
        sampling: `image`: every image equally often; `area`: every place equally often.
        sharpness: how many places in an image are looked at for a patch, of which sharp ones are preferred; 1 is off.
        augment_on: `worker` or `device`.
        color: `y` trains a network of one channel on Y.
        batch_size_per_gpu: patches in a batch, on each device.
        num_worker_per_gpu: threads that cut patches ahead, for each device; by default none for a store on the CPU,
            one for a store on a GPU, and four where images are decoded.
        pin_memory: give memory that GPUs can fetch from.
        dataset_enlarge_ratio: accepted for BasicSR's sake; there are no epochs here.
        use_shuffle: likewise; the order is always random.
        prefetch_mode: likewise; workers always read ahead.
        num_prefetch_queue: batches that each worker reads ahead.
        persistent_workers: accepted for BasicSR's sake; workers live as long as the run.
    """

    name: str = "train"
    type: Literal["PairedImageDataset", "StoreDataset"]
    dataroot: UserPath | None = None
    dataroot_gt: UserPath | None = None
    dataroot_lq: UserPath | None = None
    meta_info_file: UserPath | None = None
    filename_tmpl: str | None = None
    io_backend: IoBackend = IoBackend()
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
        wanted = ("dataroot",) if self.type == "StoreDataset" else ("dataroot_gt", "dataroot_lq")
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
        """The patch sizes in their order, the first from update 0 on."""
        if not self.gt_sizes:
            return [PatchStage(0, self.gt_size, self.batch_size_per_gpu)]
        starts = itertools.accumulate(self.iters[:-1], initial=0)
        return list(itertools.starmap(PatchStage, zip(starts, self.gt_sizes, self.mini_batch_sizes, strict=True)))

    def open(self, scale: float, planes: tuple[str, ...] = ()) -> ImagePairs:
        """Open the data set for a factor.

        Args:
            scale: the factor.
            planes: further planes of a store.

        Raises:
            InputError: it is not there, or not for this factor.
        """
        spec: dict[str, Any] = {"type": self.type, "scale": scale}
        if self.type == "StoreDataset":
            spec |= {"dataroot": self.dataroot, "planes": planes}
        else:
            spec |= {"dataroot_gt": self.dataroot_gt, "dataroot_lq": self.dataroot_lq}
            spec |= {"meta_info_file": self.meta_info_file, "io_backend": {"type": self.io_backend.type}}
            spec |= {} if self.filename_tmpl is None else {"filename_tmpl": self.filename_tmpl}
        images: ImagePairs = DATASETS.build(spec)
        return images

    def patches(
        self, images: ImagePairs, stage: PatchStage, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> Patches:
        """Patches of the data set, as these options ask for them in one of their stages."""
        return Patches(
            images,
            gt_size=stage.gt_size,
            batch_size=stage.batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            sampling=self.sampling,
            sharpness=self.sharpness,
            use_hflip=self.use_hflip if self.use_flip is None else self.use_flip,
            use_rot=self.use_rot,
            use_channel_shuffle=self.use_channel_shuffle,
            use_inversion=self.use_inversion,
            augment_on=self.augment_on,
        )
