"""Running the segments of a network over tiles of one image, within a memory budget."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor

from imdn_kd.archs.base import Segment, Statistics
from imdn_kd.errors import InputError
from imdn_kd.inference.buffers import FileBuffer, TensorBuffer, TileBuffer
from imdn_kd.inference.memory import PeakMemory, is_out_of_memory
from imdn_kd.inference.tiles import SMALLEST_INNER, Tile, plan_tiles, round_up

log = logging.getLogger("imdn_kd")

STATE_SHARE = 0.75
"""Features between segments stay in memory if they take no more than this part of it; otherwise they go to the disk."""


class RunningStats:
    """Mean and population standard deviation of each channel over pixels that come in parts, merged in float64.

    After Chan, Golub and LeVeque, "Algorithms for Computing the Sample Variance", The American Statistician 1983,
    https://doi.org/10.1080/00031305.1983.10483115.
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
class FeatureSpec:
    """Shape and type of a feature that a segment makes; `scale` is the side of its map / the side of the image."""

    channels: int
    scale: Fraction
    dtype: torch.dtype

    @property
    def image_pixel_bytes(self) -> float:
        """Bytes of the map per px of the input image."""
        return float(self.channels * self.dtype.itemsize * self.scale**2)


@dataclass(frozen=True)
class SegmentCost:
    """Memory that a segment takes.

    Attributes:
        pixel_bytes: bytes alive at the same time per px of the tile of the input image, inputs left out.
        outputs: the features that come out.
    """

    pixel_bytes: float
    outputs: dict[str, FeatureSpec]


def measure_segments(segments: Sequence[Segment], sample: Tensor) -> list[SegmentCost]:
    """Run the segments on `sample` (1 x C x h x w) and count bytes; they grow in proportion to the px."""
    pixels = sample.shape[2] * sample.shape[3]
    features, statistics, costs = {"image": sample}, None, []
    for segment in segments:
        with PeakMemory() as memory:
            outputs = segment.run({name: features[name] for name in segment.reads}, statistics)
        specs = {
            name: FeatureSpec(t.shape[1], Fraction(t.shape[2], sample.shape[2]), t.dtype)
            for name, t in outputs.items()
            if name != "sr"
        }
        costs.append(SegmentCost(memory.peak / pixels, specs))
        features |= outputs
        statistics = _statistics_of(outputs[segment.global_stat]) if segment.global_stat else None
    return costs


def _statistics_of(feature: Tensor) -> Statistics:
    merged = RunningStats()
    merged.add(feature)
    return merged.result(feature.device)


class SegmentedRun:
    """One run of `segments` over one image.

    Args:
        segments: of the network; the last outputs `sr`.
        costs: of the segments, from `measure_segments`.
        image: the input, its sides rounded up to `size`.
        sr: where the result goes.
        size: (height, width) of the image as the network sees it, multiples of `multiple`.
        multiple: edges of tiles are multiples of this.
        device: where the network runs.
        memory: bytes for tensors.
        crop_size: side of tiles, instead of planning from `memory`.
        scratch: folder for features that do not fit into `memory`.
        on_progress: called with the finished part, in (0, 1].
    """

    def __init__(
        self,
        segments: Sequence[Segment],
        costs: Sequence[SegmentCost],
        image: TileBuffer,
        sr: TileBuffer,
        *,
        size: tuple[int, int],
        multiple: int,
        device: torch.device,
        memory: int,
        crop_size: int | None,
        scratch: Path,
        on_progress: Callable[[float], None] | None,
    ) -> None:
        self._segments, self._costs, self._sr = segments, costs, sr
        self._size, self._multiple, self._device = size, multiple, device
        self._crop_size, self._scratch, self._on_progress = crop_size, scratch, on_progress
        self._maps: dict[str, TileBuffer] = {"image": image}
        self._specs: dict[str, FeatureSpec] = {}
        self._spare: list[tuple[FeatureSpec, TileBuffer]] = []
        state = self._state_bytes()
        self._on_disk = state > STATE_SHARE * memory
        self._tile_memory = memory if self._on_disk else memory - state
        if self._on_disk:
            self._check_disk(state)

    def run(self) -> None:
        """Run all segments.

        Raises:
            InputError: not even the smallest tile fits into memory, or the features do not fit on the disk.
        """
        statistics = None
        try:
            for index in range(len(self._segments)):
                statistics = self._run_segment(index, statistics)
                self._forget(index)
        except OSError as error:
            raise InputError(
                f"{self._scratch}: cannot keep features there ({error.strerror}); {_ADVICE}", code="inference.scratch"
            ) from error

    def _run_segment(self, index: int, statistics: Statistics | None) -> Statistics | None:
        segment, side = self._segments[index], self._crop_size
        area = self._tile_area(index)
        while True:
            tiles = plan_tiles(
                *self._size, multiple=self._multiple, overlap=segment.receptive_radius, max_area=area, side=side
            )
            try:
                return self._run_tiles(index, tiles, statistics)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            largest = max(tile.outer.height * tile.outer.width for tile in tiles)
            smallest = round_up(SMALLEST_INNER, self._multiple)
            if all(max(tile.inner.height, tile.inner.width) <= smallest for tile in tiles):
                raise InputError(
                    f"out of memory even with crops of {largest} px; free some memory, or use a smaller network",
                    code="inference.out-of-memory",
                )
            area, side = largest // 2, None
            log.warning("out of memory with crops of %d px; trying again with %d px", largest, area)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _run_tiles(self, index: int, tiles: list[Tile], statistics: Statistics | None) -> Statistics | None:
        segment, merged = self._segments[index], RunningStats()
        for number, tile in enumerate(tiles, 1):
            features = {
                name: self._maps[name].read(tile.outer.times(self._scale(name))).to(self._device)
                for name in segment.reads
            }
            outputs = segment.run(features, statistics)
            del features
            for name in list(outputs):
                values = outputs.pop(name)
                factor = Fraction(values.shape[2], tile.outer.height)
                inner = tile.inner.times(factor)
                rows, columns = inner.inside(tile.outer.times(factor))
                values = values[:, :, rows, columns]
                self._target(index, name).write(inner, values)
                if name == segment.global_stat:
                    merged.add(values)
            if self._on_progress:
                self._on_progress((index + number / len(tiles)) / len(self._segments))
        return merged.result(self._device) if segment.global_stat else None

    def _scale(self, name: str) -> Fraction:
        return self._specs[name].scale if name in self._specs else Fraction(1)

    def _target(self, index: int, name: str) -> TileBuffer:
        if name == "sr":
            return self._sr
        if name not in self._maps:
            self._specs[name] = self._costs[index].outputs[name]
            self._maps[name] = self._buffer(self._specs[name])
        return self._maps[name]

    def _buffer(self, spec: FeatureSpec) -> TileBuffer:
        # Memory and files used before are faster than new ones, whose pages the system clears first.
        for number, (like, buffer) in enumerate(self._spare):
            if like == spec:
                del self._spare[number]
                return buffer
        height, width = (int(side * spec.scale) for side in self._size)
        if self._on_disk:
            return FileBuffer(spec.channels, height, width, spec.dtype, self._device, self._scratch)
        shape, layout = (1, spec.channels, height, width), torch.channels_last
        return TensorBuffer(torch.empty(shape, dtype=spec.dtype, device=self._device, memory_format=layout))

    def _forget(self, index: int) -> None:
        needed = self._needed_after(index)
        for name in [name for name in self._maps if name not in needed]:
            buffer = self._maps.pop(name)
            if name in self._specs:
                self._spare.append((self._specs[name], buffer))

    def _needed_after(self, index: int) -> set[str]:
        return {name for segment in self._segments[index + 1 :] for name in segment.reads}

    def _state_bytes(self) -> int:
        """Bytes of the features that are kept at the same time, at most."""
        pixels = self._size[0] * self._size[1]
        kept: dict[str, float] = {}
        largest = 0.0
        for index, cost in enumerate(self._costs):
            kept |= {name: spec.image_pixel_bytes for name, spec in cost.outputs.items()}
            largest = max(largest, sum(kept.values()))
            needed = self._needed_after(index)
            kept = {name: size for name, size in kept.items() if name in needed}
        return int(largest * pixels)

    def _tile_area(self, index: int) -> int:
        cost = self._costs[index].pixel_bytes
        if self._on_disk:
            cost += sum(
                self._specs[name].image_pixel_bytes for name in self._segments[index].reads if name in self._specs
            )
        return int(self._tile_memory / max(1, cost))

    def _check_disk(self, needed: int) -> None:
        try:
            self._scratch.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self._scratch).free
        except OSError as error:
            raise InputError(
                f"{self._scratch}: cannot keep features there ({error.strerror}); {_ADVICE}", code="inference.scratch"
            ) from error
        if free < needed:
            raise InputError(
                f"{self._scratch}: the features of this image need {needed / 1e9:.1f} GB, "
                f"{free / 1e9:.1f} GB are free; {_ADVICE}",
                code="inference.scratch",
            )


_ADVICE = "choose another scratch folder, allow more memory, or use crop mode 'local'"
