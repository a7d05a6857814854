"""Adaptive cropping: run a super-resolution network on images of any size within a memory budget.

Mode `paper` is the adaptive cropping of the IMDN paper (Hui et al., ACM MM 2019, https://arxiv.org/abs/1909.11856).
Mode `exact` gives the result of the whole image, also for networks that pool globally: these declare their segments
(`SRNetwork.segments`). Each segment runs over all tiles, its features are kept in memory or in scratch files, and the
statistics of a pooled feature are merged over the tiles before the next segment begins (`segmented.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Literal, get_args

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from imdn_kd.archs.base import ModelInfo, Segment, SRNetwork, one_segment
from imdn_kd.errors import InputError
from imdn_kd.inference.buffers import PixelBuffer, TensorBuffer, TileBuffer
from imdn_kd.inference.engines.base import Engine
from imdn_kd.inference.engines.compiled import CompiledNetwork
from imdn_kd.inference.memory import PeakMemory, available_memory, is_out_of_memory
from imdn_kd.inference.segmented import SegmentCost, SegmentedRun, measure_segments
from imdn_kd.inference.side_by_side import Room, all_threads, has_all_threads, threads
from imdn_kd.inference.tiles import Box, round_up

log = logging.getLogger("imdn_kd")

CropMode = Literal["exact", "local", "paper", "whole"]

RUNTIME_BYTES = 800_000_000
"""About what a process takes that has imported PyTorch and run a first network; part of the budget goes there."""

SMALLEST_PROCESS = RUNTIME_BYTES * 3 // 2
"""From this budget on, in bytes, the process keeps to it; with a smaller one, PyTorch itself comes on top."""

TENSOR_SHARE = 0.6
"""Part of what is left that is planned for tensors; the rest is for the work space of operators and the allocator."""

PAPER_MIN_SIDE = 60
"""The four crops of the paper fit into the image from this side on."""

SMALLEST_BESIDE = 128
"""Images of at least this side squared in px may be run side by side with others."""

SAMPLE_SIDE = 48
"""Side in px of the sample on which the memory of a network is measured."""


def tensor_bytes(budget: int) -> int:
    """How much of a memory budget is planned for tensors; see `SMALLEST_PROCESS`."""
    return int(TENSOR_SHARE * max(budget - RUNTIME_BYTES, budget / 3))


class AdaptiveCropping(nn.Module):
    """Wraps a network so that it takes images of any height and width from 1 px up.

    Sides that the network cannot take are enlarged by repeating the last row and column, and the result is cut.
    In mode `exact`, a network is run on the whole image if its receptive field is unknown (networks of BasicSR and
    spandrel), or if it pools globally and does not declare its segments.

    Args:
        network: an `SRNetwork`, or any module from N x C x H x W to N x C x sH x sW if `info` is given.
        mode: `exact`: the whole-image result, run in crops as the budget demands. `local`: crops that know nothing of
            each other; the same as `exact` for networks without global pooling, otherwise with seams possible. It
            needs no scratch files, but more arithmetic: its crops overlap by the whole receptive field, not by that of
            a segment.
            `paper`: always the four overlapping corner crops of the paper, as one batch. `whole`: no crops.
        crop_size: side of the crops in px of the input, without overlap, instead of planning from `memory` (`exact`,
            `local`).
        memory: bytes that the process (on a GPU, its part there) may take, images not counted; below 1.2 GB PyTorch
            itself comes on top. By default half of what is free when an image comes.
        scratch: folder for features that do not fit into memory; by default the user's cache folder.
        info: what a network says of itself, for one that does not.
        engine: runs the network, which is on the CPU in fp32, in the place of PyTorch; see
            `imdn_kd.inference.engines.base`.

    Raises:
        InputError: an unknown mode, a network without info, one that pools globally and declares no segments, or mode
            `local` for a network whose receptive field is unknown.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        mode: CropMode = "exact",
        crop_size: int | None = None,
        memory: int | None = None,
        scratch: Path | str | None = None,
        info: ModelInfo | None = None,
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        if mode not in get_args(CropMode):
            raise InputError(
                f"crop mode {mode!r} is unknown; choose one of {', '.join(get_args(CropMode))}",
                code="inference.crop-mode",
            )
        if crop_size is not None and crop_size < 1:
            raise InputError(f"crop_size {crop_size} is not possible; give at least 1 px", code="inference.crop-size")
        if memory is not None and memory < 1:
            raise InputError(f"memory {memory} is not possible; give a number of bytes", code="inference.memory")
        if info is None and not isinstance(network, SRNetwork):
            raise InputError(
                f"{type(network).__name__} does not say its scale and receptive field; give `info`",
                code="model.no-info",
            )
        self.network = network
        self.info: ModelInfo = info or network.info  # type: ignore[assignment]
        self.mode = mode
        self._crop_size, self._memory = crop_size, memory
        self._scratch = Path(scratch) if scratch is not None else user_cache_path("imdn_kd")
        self._segments = self._segments_of_mode()
        self._compiled: CompiledNetwork | None = None
        if engine is not None:
            self.use(engine)
        if (mode in ("paper", "whole") or not self._segments) and (crop_size, memory) != (None, None):
            reason = f"crop mode '{mode}'" if self._segments else "a network that has no exact result in crops"
            log.warning("crop_size and memory have no effect with %s", reason)
        self._costs: tuple[list[SegmentCost], float] | None = None
        self._room, self._free = Room(), 0
        self._same_for_threads: bool | None = None

    def use(self, engine: Engine) -> None:
        """Have `engine` run the network, as if it was given at first."""
        self._compiled = CompiledNetwork(engine, self.network, self.info, self._segments)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """Upscale images N x C x H x W, in the dtype and on the device of the network, to N x C x sH x sW."""
        if image.dim() != 4 or 0 in image.shape:
            raise InputError(
                f"an image batch is N x C x H x W with no side 0, got {tuple(image.shape)}", code="image.shape"
            )
        n, c, h, w = image.shape
        if c != self.info.num_in_ch:
            raise InputError(
                f"the network takes images of {self.info.num_in_ch} channels, got {c}", code="image.channels-mismatch"
            )
        sr = image.new_empty((n, c, self.info.scale * h, self.info.scale * w))
        for k in range(n):
            self.run(TensorBuffer(image[k : k + 1]), TensorBuffer(sr[k : k + 1]))
        return sr

    @torch.no_grad()
    def run(self, image: TileBuffer, sr: TileBuffer, on_progress: Callable[[float], None] | None = None) -> None:
        """Upscale one image from buffer to buffer, so that neither must be held as a float tensor.

        Several threads may call it. Images run side by side as far as the memory that one alone may take allows, where
        this does not change the result; otherwise, on GPUs and by other engines one after the other.

        Args:
            image: H x W px.
            sr: sH x sW px, written to.
            on_progress: called with the finished part, in (0, 1].

        Raises:
            InputError: there is not enough memory or disk, however small the crops.
        """
        if self.mode == "paper":
            run = self._run_paper
        elif self.mode == "whole":
            run = self._run_whole
        elif not self._segments:
            run = self._run_uncut
        else:
            self._run_planned(image, sr, on_progress)
            return
        with self._room.take(1), all_threads():
            run(image, sr)
        if on_progress:
            on_progress(1.0)

    def _run_whole(self, image: TileBuffer, sr: TileBuffer) -> None:
        box = self._rounded(image)
        upscale, image, sr = self._fused(image, sr)
        sr.write(box.times(self.info.scale), upscale(image.read(box)))

    def _fused(self, image: TileBuffer, sr: TileBuffer) -> tuple[Callable[[Tensor], Tensor], TileBuffer, TileBuffer]:
        """What upscales tiles from buffer to buffer: where an engine can, its graph takes and makes 8-bit pixels."""
        compiled = self._compiled
        if compiled and compiled.takes_pixels and isinstance(image, PixelBuffer) and isinstance(sr, PixelBuffer):
            white, source, target = image.white, image.levels, sr.levels
            if source and target and white == sr.white:
                return lambda tile: compiled.pixels(tile, white), source, target
        return self._upscale, image, sr

    def _upscale(self, image: Tensor) -> Tensor:
        sr: Tensor = (self._compiled or self.network)(image)
        return sr

    def _run_uncut(self, image: TileBuffer, sr: TileBuffer) -> None:
        """Whole, since there is no other way."""
        try:
            self._run_whole(image, sr)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"not enough memory for {image.width}x{image.height} px at once, and {type(self.network).__name__} has "
                "no exact result in crops (receptive field unknown, or global pooling); use crop mode 'paper' or a "
                "smaller image",
                code="inference.out-of-memory",
            ) from error

    def _run_paper(self, image: TileBuffer, sr: TileBuffer) -> None:
        """Four crops of a little more than half the sides, of which the result takes a quarter each."""
        (height, half_h, crop_h), (width, half_w, crop_w) = (
            _paper_sides(side, self.info) for side in (image.height, image.width)
        )
        corners = [(top, left) for top in (0, height - crop_h) for left in (0, width - crop_w)]
        boxes = [Box(top, left, top + crop_h, left + crop_w) for top, left in corners]
        crops = self._upscale(torch.cat([image.read(box) for box in boxes]))
        kept = [
            Box(*edges)
            for edges in (
                (0, 0, half_h, half_w),
                (0, half_w, half_h, width),
                (half_h, 0, height, half_w),
                (half_h, half_w, height, width),
            )
        ]
        for box, inner, crop in zip(boxes, kept, crops, strict=True):
            rows, columns = inner.times(self.info.scale).inside(box.times(self.info.scale))
            sr.write(inner.times(self.info.scale), crop[None, :, rows, columns])

    def _run_planned(self, image: TileBuffer, sr: TileBuffer, on_progress: Callable[[float], None] | None) -> None:
        costs, whole_cost = self._measure()
        box = self._rounded(image)
        device = self._device()
        memory = tensor_bytes(self._budget(device))
        whole = whole_cost * box.height * box.width
        if self._crop_size is None and whole <= memory:
            alone = not self._runs_beside(box, device)
            try:
                with self._room.take(1 if alone else whole / memory), all_threads() if alone else nullcontext():
                    self._run_whole(image, sr)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                log.warning("out of memory with the whole image; trying again in crops")
                memory //= 2
            else:
                if on_progress:
                    on_progress(1.0)
                return
        segments = self._compiled.segments if self._compiled else self._segments
        if len(segments) == 1:
            upscale, image, sr = self._fused(image, sr)
            segments = one_segment(upscale, segments[0].receptive_radius)
        with self._room.take(1), all_threads():
            SegmentedRun(
                segments,
                costs,
                image,
                sr,
                size=(box.height, box.width),
                multiple=self.info.size_multiple,
                device=device,
                memory=memory,
                crop_size=self._crop_size,
                scratch=self._scratch,
                on_progress=on_progress,
            ).run()

    def _runs_beside(self, box: Box, device: torch.device) -> bool:
        """Whether others may run at the same time; fewer threads for each must not change a bit of the result.

        PyTorch chooses another algorithm for convolutions of 1x1 where there is one thread, and for small images.
        """
        by_pytorch = self._compiled is None and next(self.network.parameters(), None) is not None
        if not by_pytorch or device.type != "cpu":
            return False
        if has_all_threads():
            return True
        if box.height * box.width < SMALLEST_BESIDE**2:
            return False
        with self._room.take(1) if self._same_for_threads is None else nullcontext():
            if self._same_for_threads is None:
                self._same_for_threads = self._measure_threads()
        return self._same_for_threads

    def _measure_threads(self) -> bool:
        step = self.info.size_multiple
        parameter = next(self.network.parameters(), torch.empty(0))
        for sides in ((SMALLEST_BESIDE, SMALLEST_BESIDE + 1), (181, 275)):
            shape = (1, self.info.num_in_ch, *(round_up(max(side, self.info.min_size), step) for side in sides))
            sample = parameter.new_empty(shape).uniform_(generator=torch.Generator().manual_seed(0))
            sample = sample.contiguous(memory_format=torch.channels_last)
            with all_threads():
                expected = self.network(sample)
            for count in (1, 2):
                with threads(count):
                    if not torch.equal(self.network(sample), expected):
                        return False
        return True

    def _budget(self, device: torch.device) -> int:
        if self._memory is not None:
            return self._memory
        if not self._room.users:  # what others take at the moment must not change how an image is cut
            self._free = available_memory(device)
        return self._free // 2

    def _segments_of_mode(self) -> list[Segment]:
        """The segments that crops are made of; empty where the network cannot be cut."""
        name = type(self.network).__name__
        if self.info.receptive_radius is None:
            if self.mode == "local":
                raise InputError(
                    f"the receptive field of {name} is unknown; use crop mode 'exact', 'paper' or 'whole'",
                    code="inference.no-exact-crops",
                )
            return []
        if self.mode == "exact":
            if isinstance(self.network, SRNetwork):
                return self.network.segments()
            if self.info.global_pool_modules:
                raise InputError(
                    f"{name} pools globally and declares no segments; use crop mode 'local' or 'whole'",
                    code="inference.no-exact-crops",
                )
        return one_segment(self.network, self.info.receptive_radius)

    def _measure(self) -> tuple[list[SegmentCost], float]:
        """Costs of the segments, and bytes per px of the image when the network runs at once."""
        if self._costs is None:
            parameter = next(self.network.parameters(), torch.empty(0))
            side = round_up(max(SAMPLE_SIDE, self.info.min_size), self.info.size_multiple)
            sample = parameter.new_zeros((1, self.info.num_in_ch, side, side))
            with PeakMemory() as memory:
                self.network(sample)
            self._costs = measure_segments(self._segments, sample), memory.peak / side**2
        return self._costs

    def _device(self) -> torch.device:
        return next(self.network.parameters(), torch.empty(0)).device

    def _rounded(self, image: TileBuffer) -> Box:
        """The image with its sides rounded up to what the network takes."""
        smallest, multiple = self.info.min_size, self.info.size_multiple
        return Box(0, 0, *(round_up(max(smallest, side), multiple) for side in (image.height, image.width)))


def _paper_sides(side: int, info: ModelInfo) -> tuple[int, int, int]:
    """The side of the image enlarged so that the crops fit, half of it, and the side of a crop."""
    side = max(PAPER_MIN_SIDE, side)
    half = side // 2
    crop = round_up(max((half + 32) // 4 * 4, info.min_size), info.size_multiple)
    return max(side, crop), half, crop
