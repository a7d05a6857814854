"""Training batches cut from images, each a pure function of the seed, its number and the share of the process."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from imdn_kd.data import augment
from imdn_kd.data.base import ImagePairs
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import Pixels
from imdn_kd.utils.threads import in_order

Batch = dict[str, Tensor]
Sampling = Literal["image", "area"]
AugmentOn = Literal["worker", "device"]

logger = logging.getLogger(__name__)

_STREAM = int.from_bytes(b"patches", "big") << 64  # other users of a seed get other random numbers


@dataclass(eq=False)
class Patches:
    """Batches of aligned random patches: `patches[step]` is the whole batch of an update.

    The samples of a step are numbered through all processes; rank r has `batch_size` of them from r * `batch_size` on.
    A sample depends on the options, the step and its number alone: not on how many processes or workers there are, nor
    on what was read before.

    Patches start at multiples of the scale's denominator in `lq`, so that they start at whole px in `gt`. Of these
    positions, all in an image are equally likely; or, with `sharpness` > 1, so many are drawn and one of them is kept
    with a probability proportional to its sharpness (importance resampling). This is the mean absolute difference of
    neighbouring `lq` px, in rows and columns, of the mean of the channels; if it is 0 for all, the first is kept.

    Args:
        pairs: what to cut from; each sample reads one image.
        gt_size: side of the patches of `gt` and all planes of its size, px; a multiple of the scale's numerator.
        batch_size: samples for a step in each process, at least 1.
        seed: 0 to 2**63.
        rank: number of this process, from 0.
        world_size: how many processes there are.
        sampling: `image` takes every image equally often, `area` every position. Images that are smaller than a patch
            are left out, with a warning in the log.
        sharpness: how many positions are drawn for a sample, at least 1.
        use_hflip, use_rot, use_channel_shuffle, use_inversion: as in `augment.Augmentation`.
        augment_on: `worker` gives augmented patches; `device` leaves this to `to_training`.

    Raises:
        InputError: an option that is not as described; no image, or none that is large enough.
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

    def __post_init__(self) -> None:
        scale = self.pairs.scale
        steps, rest = divmod(self.gt_size, scale.numerator)
        if rest or steps < 1:
            near = " or ".join(str(n * scale.numerator) for n in (steps, steps + 1) if n > 0) or scale.numerator
            raise InputError(f"gt_size is {self.gt_size}; scale {scale} needs a multiple of {scale.numerator}: {near}")
        for name in ("batch_size", "world_size", "sharpness"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1 up")
        self._check_share()
        if not 0 <= self.seed <= 2**63:
            raise InputError(f"seed is {self.seed}; give a whole number from 0 to 2**63")
        for name, known in (("sampling", get_args(Sampling)), ("augment_on", get_args(AugmentOn))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        if not len(self.pairs):
            raise InputError("there are no images to cut patches from; name a data set that has some")
        self.lq_size = steps * scale.denominator
        self._augmentation = augment.Augmentation(
            self.use_hflip, self.use_rot, self.use_channel_shuffle, self.use_inversion
        )
        starts = [[self._starts(side) for side in size] for size in self.pairs.lq_sizes().tolist()]
        places = np.array(starts, np.int64).prod(axis=1)
        small = np.flatnonzero(places == 0)
        if len(small) == len(places):
            raise InputError(f"gt_size is {self.gt_size}, and no image is so large; give less")
        if len(small):
            names = ", ".join(self.pairs.name(int(index)) for index in small[:5])
            logger.warning(
                "%d of %d images are smaller than the patches of %d px and are left out: %s%s",
                *(len(small), len(places), self.gt_size, names, ", ..." if len(small) > 5 else ""),
            )
        # The weights of all images in one row: where that of each image ends.
        self._ends = (places if self.sampling == "area" else np.sign(places)).cumsum()

    def __getitem__(self, step: int) -> Batch:
        """Return the batch of a step.

        Returns:
            All planes, uint8, N x 3 x h x w, channels last; and with `augment_on="device"`, `codes`, N, int64.

        Raises:
            InputError: `step` is negative, or an image is damaged.
        """
        scale, words = self.pairs.scale, self._words(step)
        # For every plane: side of the patches, and px for a px of lq.
        measures = dict.fromkeys(self.pairs.planes, (self.gt_size, scale.numerator, scale.denominator))
        measures["lq"] = self.lq_size, 1, 1
        arrays = {plane: np.empty((len(words), side, side, 3), np.uint8) for plane, (side, _, _) in measures.items()}
        codes = self._augmentation.draw(torch.from_numpy(words[:, 1].astype(np.int64)))
        at_once = codes.tolist() if self.augment_on == "worker" else [0] * len(words)
        for number, (which, _, *where) in enumerate(words.tolist()):
            planes = self.pairs.read(self._image(which))
            corner = self._corner(planes["lq"], where)
            for plane, (side, up, down) in measures.items():
                top, left = (start * up // down for start in corner)
                # Straight into its place: planes may be mapped files, of which no more than this is to be read.
                patch = planes[plane][top : top + side, left : left + side]
                augment.copy_sample(patch.transpose(2, 0, 1), arrays[plane][number].transpose(2, 0, 1), at_once[number])
        batch = {plane: torch.from_numpy(array).permute(0, 3, 1, 2) for plane, array in arrays.items()}
        return batch | {"codes": codes} if self.augment_on == "device" else batch

    def share(self, rank: int, world_size: int) -> Patches:
        """Return the same patches for one of several processes; nothing is looked through again.

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
        """Return the batches of the steps `start` to `stop` - 1, in this order.

        Workers are threads: what takes time here, copying and decoding, runs outside Python's lock, and batches need
        not be sent from process to process, which would take longer than cutting them.

        Args:
            start: first step, from 0.
            stop: the step after the last.
            workers: threads that cut patches ahead; 0 cuts each batch when it is asked for.
            pin_memory: hand out page-locked memory, which is copied to a GPU without holding up this process.
            prefetch: batches that each worker keeps ready, at least 1.

        Raises:
            InputError: an option that is not as described. While iterating: as `patches[step]`.
        """
        if not 0 <= start <= stop:
            raise InputError(
                f"steps are {start} to {stop}; give a first one from 0 up and a stop that is not before it"
            )
        if workers < 0 or prefetch < 1:
            raise InputError(f"workers are {workers} and prefetch is {prefetch}; give at least 0 and 1")

        def cut(step: int) -> Batch:
            batch = self[step]
            return {plane: images.pin_memory() for plane, images in batch.items()} if pin_memory else batch

        steps = range(start, stop)
        if not workers:
            return map(cut, steps)
        return in_order(cut, steps, workers=workers, ahead=1 + workers * prefetch, name="patches")

    def _check_share(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank is {self.rank} of {self.world_size}; give 0 to {self.world_size - 1}")

    def _words(self, step: int) -> npt.NDArray[np.uint64]:
        """A row of random words for each sample: image, augmentation, which position to keep, and the positions."""
        if step < 0:
            raise InputError(f"step is {step}; give a whole number from 0 up")
        rows, columns = (self.rank + 1) * self.batch_size, 3 + self.sharpness
        # Counts up from a number that no other step comes near. The raw words are what numpy never changes.
        philox = np.random.Philox(key=_STREAM + self.seed, counter=step << 128)
        return philox.random_raw(rows * columns).reshape(rows, columns)[-self.batch_size :]

    def _image(self, word: int) -> int:
        return int(np.searchsorted(self._ends, _below(int(self._ends[-1]), word), side="right"))

    def _corner(self, lq: Pixels, words: list[int]) -> tuple[int, int]:
        """Top and left of the patch in `lq`, px."""
        rows, columns = map(self._starts, lq.shape[:2])
        keep, *drawn = words
        unit, side = self.pairs.scale.denominator, self.lq_size
        spots = (divmod(_below(rows * columns, word), columns) for word in drawn)
        corners = [(row * unit, column * unit) for row, column in spots]
        if len(corners) == 1:
            return corners[0]
        ends = np.cumsum([_sharpness(lq[top : top + side, left : left + side]) for top, left in corners])
        return corners[np.searchsorted(ends, _below(int(ends[-1]), keep), side="right") if ends[-1] else 0]

    def _starts(self, side: int) -> int:
        """In how many places of a side of `lq` a patch can start."""
        return max((side - self.lq_size) // self.pairs.scale.denominator + 1, 0)


def to_training(
    batch: Batch, device: torch.device | str, dtype: torch.dtype = torch.float32, white: float = 1.0
) -> Batch:
    """Bring a batch from the CPU to where it is trained on, without waiting for the device.

    Args:
        batch: of `Patches`, with codes or without.
        device: where to.
        dtype: a floating type.
        white: what 255 becomes; black stays 0.

    Returns:
        All planes, augmented as the codes say and without these: N x 3 x h x w, channels last, 0 to `white`.
    """
    planes = {plane: images.to(device, non_blocking=True) for plane, images in batch.items() if plane != "codes"}
    if "codes" in batch:
        planes = {plane: augment.apply(images, batch["codes"]) for plane, images in planes.items()}
    return {plane: images.to(dtype).div_(255 / white) for plane, images in planes.items()}


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
    """A whole number from 0 to `count` - 1 from 64 random bits."""
    return word * count >> 64


def _sharpness(patch: Pixels) -> int:
    """Sum of the absolute differences: whole numbers, so that it is the same on every machine."""
    grey = patch[..., 0].astype(np.int32) + patch[..., 1] + patch[..., 2]
    return int(np.abs(grey[1:] - grey[:-1]).sum() + np.abs(grey[:, 1:] - grey[:, :-1]).sum())
