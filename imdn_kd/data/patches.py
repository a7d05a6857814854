"""Batches of random training patches: each a pure function of the seed, the iteration and the rank."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imdn_kd.data import augment
from imdn_kd.data.base import ImagePairs
from imdn_kd.data.degradation.schema import Step, check_steps
from imdn_kd.data.on_the_fly import LrPatches
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import RgbImage
from imdn_kd.utils.threads import in_order

Batch = dict[str, Tensor]
Sampling = Literal["image", "area"]
AugmentOn = Literal["worker", "device"]

logger = logging.getLogger(__name__)

_STREAM = int.from_bytes(b"patches", "big") << 64  # other users of a seed get other random numbers


@dataclass(eq=False)
class Patches:
    """Batches of aligned random patches: `patches[step]` is the whole batch of one iteration.

    The samples of an iteration are numbered across all processes; rank r has `batch_size` of them from
    r * `batch_size` on. A sample depends on the options, the iteration and its number alone: not on the number of
    processes or workers, nor on what was read before.

    Patches start at multiples of the scale's denominator in `lq`, so that they start at whole px in `gt`, and, beside
    maps of features, at whole px of these. Positions in an image are drawn uniformly; with `sharpness` > 1, that many
    candidates are drawn and one is kept with a probability proportional to its sharpness (importance resampling). This
    is the mean absolute difference of neighbouring `lq` px, in rows and columns, of the mean of the channels; if it is
    0 for all, the first is kept.

    With a `degradation`, `lq` is made from `gt` for each patch, by random numbers of the same kind, and candidates
    are judged by `gt`.

    Args:
        pairs: the images; each sample reads one of them.
        gt_size: side of the patches of `gt` and all planes of its size, px; a multiple of the scale's numerator.
        batch_size: samples per iteration in each process, at least 1.
        seed: 0 to 2**63.
        rank: number of this process, from 0.
        world_size: number of processes.
        sampling: `image` samples images uniformly, `area` uniformly by area. Images smaller than a patch are left
            out, with a warning in the log.
        sharpness: candidate positions per sample, at least 1.
        use_hflip, use_rot, use_channel_shuffle, use_inversion: as in `augment.AugmentOptions`.
        augment_on: `worker` gives augmented patches; `device` leaves this to `to_training`.
        degradation: steps that make `lq`; without them, `pairs` have it.

    Raises:
        InputError: `degradation.steps`, steps that give no image of the size of `lq`; `patches.out-of-range` or
            `patches.unknown-choice`, an option that is not as described; `patches.gt-size`, no multiple of the scale,
            no whole px of a map, or larger than all images; `patches.no-images`; `patches.map-augmentation`, maps of
            features beside channel shuffle or inversion.
    """

    pairs: ImagePairs
    _: KW_ONLY
    gt_size: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    sampling: Sampling = "image"
    sharpness: int = 1
    use_hflip: bool = True
    use_rot: bool = True
    use_channel_shuffle: bool = False
    use_inversion: bool = False
    augment_on: AugmentOn = "device"
    degradation: Sequence[Step] = ()

    def __post_init__(self) -> None:
        scale = self.pairs.scale
        steps, rest = divmod(self.gt_size, scale.numerator)
        if rest or steps < 1:
            near = " or ".join(str(n * scale.numerator) for n in (steps, steps + 1) if n > 0) or scale.numerator
            message = f"gt_size is {self.gt_size}; scale {scale} needs a multiple of {scale.numerator}: {near}"
            raise InputError(message, code="patches.gt-size")
        for name in ("batch_size", "world_size", "sharpness"):
            if getattr(self, name) < 1:
                message = f"{name} is {getattr(self, name)}; give a whole number from 1 up"
                raise InputError(message, code="patches.out-of-range")
        self._check_share()
        if not 0 <= self.seed <= 2**63:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to 2**63", code="patches.out-of-range")
        for name, known in (("sampling", get_args(Sampling)), ("augment_on", get_args(AugmentOn))):
            if getattr(self, name) not in known:
                message = f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}"
                raise InputError(message, code="patches.unknown-choice")
        if not len(self.pairs):
            message = "there are no images to cut patches from; name a data set that has some"
            raise InputError(message, code="patches.no-images")
        self.lq_size = steps * scale.denominator
        self._lr_patches = None
        if self.degradation:
            check_steps(self.degradation, downscales=scale > 1)
            self._lr_patches = LrPatches(self.degradation, scale, self.seed)
        self._pitches: Mapping[str, Fraction] = getattr(self.pairs, "pitches", {})
        self._check_maps()
        self._unit = math.lcm(scale.denominator, *(pitch.numerator for pitch in self._pitches.values()))
        self._augmentation = augment.AugmentOptions(
            self.use_hflip, self.use_rot, self.use_channel_shuffle, self.use_inversion
        )
        starts = [[self._starts(side) for side in size] for size in self.pairs.lq_sizes().tolist()]
        places = np.array(starts, np.int64).prod(axis=1)
        small = np.flatnonzero(places == 0)
        if len(small) == len(places):
            raise InputError(f"gt_size is {self.gt_size}, and no image is so large; give less", code="patches.gt-size")
        if len(small):
            names = ", ".join(self.pairs.name(int(index)) for index in small[:5])
            logger.warning(
                "%d of %d images are smaller than the patches of %d px and are left out: %s%s",
                *(len(small), len(places), self.gt_size, names, ", ..." if len(small) > 5 else ""),
            )
        # The weights of all images in one row: where that of each image ends.
        self._ends = (places if self.sampling == "area" else np.sign(places)).cumsum()

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of an iteration.

        Returns:
            All planes, uint8, N x 3 x h x w, maps of features as they are stored, N x C x h x w, all channels last;
            with `augment_on="device"` also `transform_codes`, N, int64.

        Raises:
            InputError: `step` is negative, or an image is damaged.
        """
        scale, random_bits = self.pairs.scale, self._random_bits(step)
        # For every plane: side of the patches, and px for a px of lq.
        measures = dict.fromkeys(self.pairs.planes, (self.gt_size, scale.numerator, scale.denominator))
        measures["lq"] = self.lq_size, 1, 1
        judged = "gt" if self._lr_patches else "lq"
        for plane, pitch in self._pitches.items():
            measures[plane] = int(self.lq_size / pitch), pitch.denominator, pitch.numerator
        count = len(random_bits)
        arrays: dict[str, npt.NDArray[Any]] = {}
        transform_codes = self._augmentation.draw(torch.from_numpy(random_bits[:, 1].astype(np.int64)))
        at_once = transform_codes.tolist() if self.augment_on == "worker" else [0] * count
        for number, (which, _, *where) in enumerate(random_bits.tolist()):
            planes = self.pairs.read(self._image(which))
            corner = self._corner(planes[judged], where, *measures[judged])
            for plane, (side, up, down) in measures.items():
                top, left = (start * up // down for start in corner)
                if plane == "lq" and self._lr_patches:
                    sample = self.rank * self.batch_size + number
                    patch = self._lr_patches.patch(planes["gt"], corner, side, step, sample)
                else:
                    # Straight into its place: planes may be mapped files, of which no more than this is to be read.
                    patch = planes[plane][top : top + side, left : left + side]
                if plane not in arrays:
                    arrays[plane] = np.empty((count, side, side, patch.shape[2]), patch.dtype)
                augment.copy_sample(patch.transpose(2, 0, 1), arrays[plane][number].transpose(2, 0, 1), at_once[number])
        batch = {plane: torch.from_numpy(array).permute(0, 3, 1, 2) for plane, array in arrays.items()}
        return batch | {"transform_codes": transform_codes} if self.augment_on == "device" else batch

    def share(self, rank: int, world_size: int) -> Patches:
        """Return the same patches for one of several processes, without reading the sizes again.

        Raises:
            InputError: there is no such process.
        """
        other = copy.copy(self)
        other.rank, other.world_size = rank, world_size
        other._check_share()
        return other

    def loader(
        self, start: int, stop: int, *, workers: int = 0, pin_memory: bool = False, prefetch: int = 2
    ) -> Iterator[Batch]:
        """Return the batches of the iterations `start` to `stop` - 1, in this order.

        Workers are threads: copying and decoding release Python's lock, and sending a batch from process to process
        would take longer than cutting it.

        Args:
            start: first iteration, from 0.
            stop: the iteration after the last.
            workers: threads that cut patches ahead; 0 cuts each batch on demand.
            pin_memory: return page-locked memory, which is copied to a GPU asynchronously.
            prefetch: batches that each worker keeps ready, at least 1.

        Raises:
            InputError: an option that is not as described. While iterating: as `patches[step]`.
        """
        if not 0 <= start <= stop:
            message = f"steps are {start} to {stop}; give a first one from 0 up and a stop that is not before it"
            raise InputError(message, code="patches.out-of-range")
        if workers < 0 or prefetch < 1:
            message = f"workers are {workers} and prefetch is {prefetch}; give at least 0 and 1"
            raise InputError(message, code="patches.out-of-range")

        def cut(step: int) -> Batch:
            batch = self[step]
            return {plane: images.pin_memory() for plane, images in batch.items()} if pin_memory else batch

        steps = range(start, stop)
        if not workers:
            return map(cut, steps)
        return in_order(cut, steps, workers=workers, ahead=1 + workers * prefetch, name="patches")

    def _check_share(self) -> None:
        if not 0 <= self.rank < self.world_size:
            message = f"rank is {self.rank} of {self.world_size}; give 0 to {self.world_size - 1}"
            raise InputError(message, code="patches.out-of-range")

    def _check_maps(self) -> None:
        for plane, pitch in self._pitches.items():
            if self.lq_size % pitch:
                raise InputError(
                    f"gt_size is {self.gt_size}, so patches have {self.lq_size} LR px, but a px of {plane} has "
                    f"{float(pitch):g}; give a gt_size that is a multiple of both",
                    code="patches.gt-size",
                )
        if self._pitches and (self.use_channel_shuffle or self.use_inversion):
            raise InputError(
                "maps of features are there, which nobody knows for shuffled or inverted colours; turn off "
                "use_channel_shuffle and use_inversion",
                code="patches.map-augmentation",
            )

    def _random_bits(self, step: int) -> npt.NDArray[np.uint64]:
        """A row of 64-bit random numbers for each sample: image, transform code, candidate to keep, candidates."""
        if step < 0:
            raise InputError(f"step is {step}; give a whole number from 0 up", code="patches.out-of-range")
        rows, columns = (self.rank + 1) * self.batch_size, 3 + self.sharpness
        # Counts up from a number that no other step comes near. The raw stream is what numpy never changes.
        philox = np.random.Philox(key=_STREAM + self.seed, counter=step << 128)
        return philox.random_raw(rows * columns).reshape(rows, columns)[-self.batch_size :]

    def _image(self, word: int) -> int:
        return int(np.searchsorted(self._ends, _below(int(self._ends[-1]), word), side="right"))

    def _corner(self, judged: RgbImage, random_bits: list[int], side: int, up: int, down: int) -> tuple[int, int]:
        """Top and left of the patch in `lq`, px.

        Args:
            judged: the plane whose sharpness counts.
            random_bits: those for positions.
            side: of its patches.
            up: px of it for `down` px of `lq`.
            down: see `up`.
        """
        rows, columns = (self._starts(length * down // up) for length in judged.shape[:2])
        keep, *drawn = random_bits
        unit = self._unit
        spots = (divmod(_below(rows * columns, word), columns) for word in drawn)
        corners = [(row * unit, column * unit) for row, column in spots]
        if len(corners) == 1:
            return corners[0]
        starts = [(top * up // down, left * up // down) for top, left in corners]
        ends = np.cumsum([_sharpness(judged[top : top + side, left : left + side]) for top, left in starts])
        return corners[np.searchsorted(ends, _below(int(ends[-1]), keep), side="right") if ends[-1] else 0]

    def _starts(self, side: int) -> int:
        """Number of positions along a side of `lq` at which a patch can start."""
        return max((side - self.lq_size) // self._unit + 1, 0)


def to_training(
    batch: Batch, device: torch.device | str, dtype: torch.dtype = torch.float32, max_value: float = 1.0
) -> Batch:
    """Move a batch to the training device as floats, without waiting for the device.

    Args:
        batch: of `Patches`, with transform codes or without.
        device: the training device.
        dtype: a floating type.
        max_value: what 255 becomes; black stays 0.

    Returns:
        All planes, augmented by the codes and without these: N x 3 x h x w, channels last, 0 to `max_value`; the values
        of maps of features stay as they are.
    """
    planes = {plane: images.to(device, non_blocking=True) for plane, images in batch.items()}
    if "transform_codes" in batch:
        del planes["transform_codes"]
        planes = {plane: augment.apply(images, batch["transform_codes"]) for plane, images in planes.items()}
    return {
        plane: images.to(dtype) if images.is_floating_point() else images.to(dtype).div_(255 / max_value)
        for plane, images in planes.items()
    }


def to_luma(images: Tensor) -> Tensor:
    """Y of images, BT.601 from 16/255 to 235/255 and not rounded, as BasicSR's `color: y` trains on.

    Args:
        images: N x 3 x H x W, RGB in [0, 1].

    Returns:
        N x 1 x H x W, channels last.
    """
    weights = images.new_tensor([65.481, 128.553, 24.966]).view(1, 3, 1, 1)
    luma = ((images * weights).sum(1, keepdim=True) + 16) / 255
    return luma.contiguous(memory_format=torch.channels_last)


def _below(count: int, word: int) -> int:
    """A whole number from 0 to `count` - 1, from 64 random bits."""
    return word * count >> 64


def _sharpness(patch: RgbImage) -> int:
    """Sum of the absolute differences: whole numbers, so that it is the same on every machine."""
    grey = patch[..., 0].astype(np.int32) + patch[..., 1] + patch[..., 2]
    return int(np.abs(grey[1:] - grey[:-1]).sum() + np.abs(grey[:, 1:] - grey[:, :-1]).sum())
