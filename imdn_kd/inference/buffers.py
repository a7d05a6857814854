"""Buffers that tiles are read from and written to: tensors, scratch files, arrays of pixels."""

from __future__ import annotations

import errno
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from imdn_kd.inference.tiles import Box

_ROWS = 16  # written at a time: few calls, and little memory where a copy must be made


class TileBuffer(ABC):
    """Pixels or features of height x width, read and written by tiles.

    A box on an image may reach beyond the bottom and right edges, where sides were rounded up for a network: reading
    repeats the last row and column, writing leaves out what is beyond.
    """

    height: int
    width: int

    @abstractmethod
    def read(self, box: Box) -> Tensor:
        """The pixels in `box`, N x C x h x w."""

    @abstractmethod
    def write(self, box: Box, values: Tensor) -> None:
        """Put `values` (N x C x h x w) at `box`."""

    def _clip(self, box: Box) -> Box:
        bottom, right = min(box.bottom, self.height), min(box.right, self.width)
        return Box(box.top, box.left, max(box.top, bottom), max(box.left, right))


class TensorBuffer(TileBuffer):
    """A tensor N x C x H x W. Reads are views where the box lies inside."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.height, self.width = tensor.shape[2:]

    def read(self, box: Box) -> Tensor:
        """See `TileBuffer.read`."""
        clipped = self._clip(box)
        values = self.tensor[:, :, clipped.top : clipped.bottom, clipped.left : clipped.right]
        return _repeat_edges(values, box)

    def write(self, box: Box, values: Tensor) -> None:
        """See `TileBuffer.write`."""
        clipped = self._clip(box)
        target = self.tensor[:, :, clipped.top : clipped.bottom, clipped.left : clipped.right]
        target.copy_(values[:, :, : clipped.height, : clipped.width])


class FileBuffer(TileBuffer):
    """A 1 x C x H x W map in an unnamed file, which the system removes however the process ends.

    Plain reads and writes rather than a memory map: mapped pages would count as memory of the process.
    """

    def __init__(
        self, channels: int, height: int, width: int, dtype: torch.dtype, device: torch.device, folder: Path
    ) -> None:
        self.height, self.width = height, width
        self._channels, self._dtype, self._device = channels, dtype, device
        self._pixel_bytes = channels * dtype.itemsize
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - closed with the buffer

    def read(self, box: Box) -> Tensor:
        """See `TileBuffer.read`."""
        values = torch.empty((box.height, box.width, self._channels), dtype=self._dtype)
        for row, piece in self._pieces(box, values):
            self._seek(box.top + row, box.left)
            self._file.readinto(piece.data)
        return _as_batch(values).to(self._device)

    def write(self, box: Box, values: Tensor) -> None:
        """See `TileBuffer.write`. Raises OSError where the disk is full."""
        rows = values[0].permute(1, 2, 0).to("cpu")
        for row, piece in self._pieces(box, rows if rows.stride(2) == 1 else rows.contiguous()):
            self._seek(box.top + row, box.left)
            if self._file.write(np.ascontiguousarray(piece).data) != piece.nbytes:
                raise OSError(errno.ENOSPC, "the disk is full")

    def _pieces(self, box: Box, rows: Tensor) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """The bytes of `rows` (h x w x C, the last dimension dense) in parts that lie in one piece in the file."""
        step = _ROWS if box.width == self.width else 1
        data = rows.view(torch.uint8).numpy()
        return ((row, data[row : row + step]) for row in range(0, box.height, step))

    def _seek(self, row: int, column: int) -> None:
        self._file.seek((row * self.width + column) * self._pixel_bytes)


class PixelBuffer(TileBuffer):
    """An array H x W x C, as images are stored.

    Args:
        pixels: read from or written to in place. uint8 and uint16 span 0 to 1, floats stand for themselves.
        white: value in the tensors that stands for 1.
        dtype: of the tensors that `read` returns.
        device: of the tensors that `read` returns.
    """

    def __init__(
        self,
        pixels: npt.NDArray[Any],
        *,
        white: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels, self._dtype, self._device = pixels, dtype, device
        self.white = white
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        self._top, self._factor = top, np.float32(white / top)

    @property
    def levels(self) -> LevelBuffer | None:
        """The pixels as they are, if they are of uint8."""
        return LevelBuffer(self._pixels) if self._pixels.dtype == np.uint8 else None

    def read(self, box: Box) -> Tensor:
        """See `TileBuffer.read`."""
        clipped = self._clip(box)
        pixels = self._pixels[clipped.top : clipped.bottom, clipped.left : clipped.right].astype(np.float32)
        pixels *= self._factor
        values = _as_batch(torch.from_numpy(pixels)).to(self._device, self._dtype)
        return _repeat_edges(values, box)

    def write(self, box: Box, values: Tensor) -> None:
        """See `TileBuffer.write`: floats are kept as they are, integers are clamped to their range and rounded."""
        clipped = self._clip(box)
        pixels = values[0, :, : clipped.height, : clipped.width].permute(1, 2, 0).float() / float(self._factor)
        if self._top > 1:
            pixels = pixels.round_().clamp_(0, self._top)
        self._pixels[clipped.top : clipped.bottom, clipped.left : clipped.right] = pixels.cpu().numpy()


class LevelBuffer(TileBuffer):
    """An array H x W x C of uint8, whose tensors 1 x C x h x w are of uint8 as well.

    Args:
        pixels: read from or written to in place.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.height, self.width = pixels.shape[:2]
        self._pixels = pixels

    def read(self, box: Box) -> Tensor:
        """See `TileBuffer.read`."""
        clipped = self._clip(box)
        pixels = self._pixels[clipped.top : clipped.bottom, clipped.left : clipped.right]
        beyond = ((0, box.height - clipped.height), (0, box.width - clipped.width), (0, 0))
        return _as_batch(torch.from_numpy(np.pad(pixels, beyond, mode="edge")))

    def write(self, box: Box, values: Tensor) -> None:
        """See `TileBuffer.write`."""
        clipped = self._clip(box)
        pixels = values[0, :, : clipped.height, : clipped.width].permute(1, 2, 0)
        self._pixels[clipped.top : clipped.bottom, clipped.left : clipped.right] = pixels.numpy()


def _as_batch(pixels: Tensor) -> Tensor:
    """H x W x C as 1 x C x H x W without a copy.

    The new dimension comes first: added last, it gets a stride by which PyTorch does not know the layout as channels
    last, and operators fall back to slower ones that take more memory.
    """
    return pixels[None].permute(0, 3, 1, 2)


def _repeat_edges(values: Tensor, box: Box) -> Tensor:
    below, right = box.height - values.shape[2], box.width - values.shape[3]
    return F.pad(values, (0, right, 0, below), mode="replicate") if below or right else values
