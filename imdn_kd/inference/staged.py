"""Running the stages of a network over crops of one image, within a memory budget."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from imdn_kd.archs.base import Stage, Statistics
from imdn_kd.errors import InputError
from imdn_kd.inference.buffers import Canvas, FileCanvas, TensorCanvas
from imdn_kd.inference.memory import PeakBytes, is_out_of_memory
from imdn_kd.inference.tiles import SMALLEST_CORE, Crop, plan_crops, round_up

log = logging.getLogger("imdn_kd")

STATE_SHARE = 0.75
"""Features between stages stay in memory if they take no more than this part of it; otherwise they go to the disk."""


class MergedStatistics:
    """Mean and population standard deviation of each channel over pixels that come in parts, merged in float64.

    Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._squares = torch.zeros((), dtype=torch.float64)

    def add(self, part: Tensor) -> None:
        """Take in `part`, 1 x C x h x w."""
        # As rows of channels, which is how the maps lie in memory: ten times faster than `torch.var_mean`.
        pixels = part[0].permute(1, 2, 0).flatten(0, 1).float()
        count, centre = pixels.shape[0], pixels.mean(0)
        mean = centre.double().cpu()
        variance = (pixels - centre).square_().mean(0).double().cpu()
        total = self._count + count
        delta = mean - self._mean
        self._mean = self._mean + delta * (count / total)
        self._squares = self._squares + variance * count + delta.square() * (self._count * count / total)
        self._count = total

    def result(self, device: torch.device) -> Statistics:
        """The statistics of all parts, fp32 on `device`, 1 x C x 1 x 1 each."""
        shape = (1, -1, 1, 1)
        std = (self._squares / self._count).sqrt()
        return Statistics(self._mean.float().reshape(shape).to(device), std.float().reshape(shape).to(device))


@dataclass(frozen=True)
class Made:
    """A feature that a stage makes; `scale` is the side of its map / the side of the image."""

    channels: int
    scale: Fraction
    dtype: torch.dtype

    @property
    def image_pixel_bytes(self) -> float:
        """Bytes of the map per px of the input image."""
        return float(self.channels * self.dtype.itemsize * self.scale**2)


@dataclass(frozen=True)
class StageCost:
    """What running a stage takes.

    Attributes:
        pixel_bytes: bytes alive at the same time per px of the crop of the input image, inputs left out.
        makes: the features that come out.
    """

    pixel_bytes: float
    makes: dict[str, Made]


def measure_stages(stages: Sequence[Stage], sample: Tensor) -> list[StageCost]:
    """Run the stages on `sample` (1 x C x h x w) and count bytes; they grow in proportion to the px."""
    pixels = sample.shape[2] * sample.shape[3]
    features, statistics, costs = {"image": sample}, None, []
    for stage in stages:
        with PeakBytes() as memory:
            made = stage.run({name: features[name] for name in stage.reads}, statistics)
        makes = {
            name: Made(t.shape[1], Fraction(t.shape[2], sample.shape[2]), t.dtype)
            for name, t in made.items()
            if name != "sr"
        }
        costs.append(StageCost(memory.peak / pixels, makes))
        features |= made
        statistics = _statistics_of(made[stage.pools]) if stage.pools else None
    return costs


def _statistics_of(feature: Tensor) -> Statistics:
    merged = MergedStatistics()
    merged.add(feature)
    return merged.result(feature.device)


class StagedRun:
    """One run of `stages` over one image.

    Args:
        stages: of the network; the last makes `sr`.
        costs: of the stages, from `measure_stages`.
        image: the input, its sides rounded up to `size`.
        sr: where the result goes.
        size: (height, width) of the image as the network sees it, multiples of `multiple`.
        multiple: edges of crops are multiples of this.
        device: where the network runs.
        memory: bytes for tensors.
        crop_size: side of crops, instead of planning from `memory`.
        scratch: folder for features that do not fit into `memory`.
        on_progress: called with the finished part, in (0, 1].
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        costs: Sequence[StageCost],
        image: Canvas,
        sr: Canvas,
        *,
        size: tuple[int, int],
        multiple: int,
        device: torch.device,
        memory: int,
        crop_size: int | None,
        scratch: Path,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._stages, self._costs, self._sr = stages, costs, sr
        self._size, self._multiple, self._device = size, multiple, device
        self._crop_size, self._scratch, self._on_progress = crop_size, scratch, on_progress
        self._maps: dict[str, Canvas] = {"image": image}
        self._made: dict[str, Made] = {}
        self._spare: list[tuple[Made, Canvas]] = []
        state = self._state_bytes()
        self._on_disk = state > STATE_SHARE * memory
        self._crop_memory = memory if self._on_disk else memory - state
        if self._on_disk:
            self._check_disk(state)

    def run(self) -> None:
        """Run all stages.

        Raises:
            InputError: not even the smallest crop fits into memory, or the features do not fit on the disk.
        """
        statistics = None
        try:
            for index in range(len(self._stages)):
                statistics = self._run_stage(index, statistics)
                self._forget(index)
        except OSError as error:
            raise InputError(f"{self._scratch}: cannot keep features there ({error.strerror}); {_ADVICE}") from error

    def _run_stage(self, index: int, statistics: Statistics | None) -> Statistics | None:
        stage, side = self._stages[index], self._crop_size
        area = self._crop_area(index)
        while True:
            crops = plan_crops(*self._size, multiple=self._multiple, radius=stage.radius, max_area=area, side=side)
            try:
                return self._run_crops(index, crops, statistics)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            largest = max(crop.padded.height * crop.padded.width for crop in crops)
            smallest = round_up(SMALLEST_CORE, self._multiple)
            if all(max(crop.core.height, crop.core.width) <= smallest for crop in crops):
                raise InputError(
                    f"out of memory even with crops of {largest} px; free some memory, or use a smaller network"
                )
            area, side = largest // 2, None
            log.warning("out of memory with crops of %d px; trying again with %d px", largest, area)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _run_crops(self, index: int, crops: list[Crop], statistics: Statistics | None) -> Statistics | None:
        stage, merged = self._stages[index], MergedStatistics()
        for number, crop in enumerate(crops, 1):
            features = {
                name: self._maps[name].read(crop.padded.times(self._scale(name))).to(self._device)
                for name in stage.reads
            }
            made = stage.run(features, statistics)
            del features
            for name in list(made):
                values = made.pop(name)
                factor = Fraction(values.shape[2], crop.padded.height)
                core = crop.core.times(factor)
                rows, columns = core.inside(crop.padded.times(factor))
                values = values[:, :, rows, columns]
                self._target(index, name).write(core, values)
                if name == stage.pools:
                    merged.add(values)
            if self._on_progress:
                self._on_progress((index + number / len(crops)) / len(self._stages))
        return merged.result(self._device) if stage.pools else None

    def _scale(self, name: str) -> Fraction:
        return self._made[name].scale if name in self._made else Fraction(1)

    def _target(self, index: int, name: str) -> Canvas:
        if name == "sr":
            return self._sr
        if name not in self._maps:
            self._made[name] = self._costs[index].makes[name]
            self._maps[name] = self._canvas(self._made[name])
        return self._maps[name]

    def _canvas(self, made: Made) -> Canvas:
        # Memory and files used before are faster than new ones, whose pages the system clears first.
        for number, (like, canvas) in enumerate(self._spare):
            if like == made:
                del self._spare[number]
                return canvas
        height, width = (int(side * made.scale) for side in self._size)
        if self._on_disk:
            return FileCanvas(made.channels, height, width, made.dtype, self._device, self._scratch)
        shape, layout = (1, made.channels, height, width), torch.channels_last
        return TensorCanvas(torch.empty(shape, dtype=made.dtype, device=self._device, memory_format=layout))

    def _forget(self, index: int) -> None:
        needed = self._needed_after(index)
        for name in [name for name in self._maps if name not in needed]:
            canvas = self._maps.pop(name)
            if name in self._made:
                self._spare.append((self._made[name], canvas))

    def _needed_after(self, index: int) -> set[str]:
        return {name for stage in self._stages[index + 1 :] for name in stage.reads}

    def _state_bytes(self) -> int:
        """Bytes of the features that are kept at the same time, at most."""
        pixels = self._size[0] * self._size[1]
        kept: dict[str, float] = {}
        largest = 0.0
        for index, cost in enumerate(self._costs):
            kept |= {name: made.image_pixel_bytes for name, made in cost.makes.items()}
            largest = max(largest, sum(kept.values()))
            needed = self._needed_after(index)
            kept = {name: size for name, size in kept.items() if name in needed}
        return int(largest * pixels)

    def _crop_area(self, index: int) -> int:
        cost = self._costs[index].pixel_bytes
        if self._on_disk:
            cost += sum(self._made[name].image_pixel_bytes for name in self._stages[index].reads if name in self._made)
        return int(self._crop_memory / max(1, cost))

    def _check_disk(self, needed: int) -> None:
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._scratch).free
        except OSError as error:
            raise InputError(f"{self._scratch}: cannot keep features there ({error.strerror}); {_ADVICE}") from error
        if free < needed:
            raise InputError(
                f"{self._scratch}: the features of this image need {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free; {_ADVICE}"
            )


_ADVICE = "choose another scratch folder, allow more memory, or use crop mode 'local'"
