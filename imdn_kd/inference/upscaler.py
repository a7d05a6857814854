"""`Upscaler`, which runs a model: images of any kind and size in, larger or restored images of the same kind out."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor, nn

from imdn_kd import zoo
from imdn_kd.archs.base import ModelInfo
from imdn_kd.archs.wrapping import wrap
from imdn_kd.errors import InputError
from imdn_kd.image.alpha import bleed_alpha
from imdn_kd.image.luma import FULL_RANGE_LUMA
from imdn_kd.image.picture import Picture
from imdn_kd.image.reader import MAX_PIXELS, pixels_of, read_image
from imdn_kd.image.resize import imresize
from imdn_kd.inference.buffers import PixelBuffer
from imdn_kd.inference.cropping import AdaptiveCropping, CropMode
from imdn_kd.inference.device import Precision, choose_device, choose_dtype, dtype_of
from imdn_kd.inference.engines.base import TORCH, find_engine
from imdn_kd.inference.engines.choice import candidates, choose_engine
from imdn_kd.inference.graph_file import GraphNetwork, engine_for, open_model
from imdn_kd.inference.hub import HubMixin
from imdn_kd.inference.memory import is_out_of_memory, trim_heap
from imdn_kd.inference.model_file import ModelFile, load_model
from imdn_kd.inference.side_by_side import all_threads
from imdn_kd.inference.sizes import Size, plan_passes, target_size

ImageArray = npt.NDArray[Any]
Progress = Callable[[float], None]
AnyImage = TypeVar("AnyImage", Picture, Image.Image, ImageArray, Tensor)

_LUMA = FULL_RANGE_LUMA.astype(np.float32)
"""A grey result has the Y of the colours that a network made of a grey image."""


class NetworkRun(NamedTuple):
    """A network that an image goes through.

    Attributes:
        model: name of the student, run or file; of a network without one, its class.
        engine: what runs it: `torch`, or the engine or runtime.
        precision: `fp32`, `bf16` or `fp16`.
        device: as PyTorch calls it: `cpu`, `cuda:0`, ...
    """

    model: str
    engine: str
    precision: str
    device: str


class Upscaler(HubMixin):
    """Upscales images with a super-resolution network, or restores them with one of scale 1.

    Several threads may call one.

    Args:
        model: a student of the zoo by name; a model file, any checkpoint that spandrel knows, or an exported .onnx or
            .xml file; a network, or any `nn.Module` that upscales images (see `wrap`); or None for the best student for
            the scale asked.
        arch: the network of a file that does not say it: `{"type": "EDSR", "num_feat": 64, ...}`; see `load_model`.
        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: `fp32`; `bf16`; `fp16`, on GPUs, and on CPUs that have it with an engine that has it; or `auto`: what
            is lossless to 8 bit, which is fp32.
        crop: how images that are large for the memory are cut; see `AdaptiveCropping`.
        crop_size: side of the crops in px, instead of planning from `memory`.
        memory: bytes that the process may take besides images; see `AdaptiveCropping`.
        scratch: folder for features that do not fit into memory.
        self_ensemble: average the results for the eight flips and turns of the image, at eight times the work
            (Timofte et al., CVPR 2016, https://arxiv.org/abs/1511.02228).
        fast: with model None, take the fastest student rather than the best.
        engine: what runs the network on the CPU: one of `imdn_kd.inference.engines.base.NAMES`, or `auto`: the fastest
            that is installed, has the precision and gives the result of PyTorch (to 1e-4 in fp32), measured when a
            network is first used on a machine. On GPUs it is PyTorch.

    Raises:
        InputError: no such model, device, precision or engine, or a bad option.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | ModelFile | None = None,
        *,
        arch: Mapping[str, Any] | None = None,
        device: str | torch.device = "auto",
        precision: Precision = "auto",
        crop: CropMode = "exact",
        crop_size: int | None = None,
        memory: int | None = None,
        scratch: Path | str | None = None,
        self_ensemble: bool = False,
        fast: bool = False,
        engine: str = "auto",
    ) -> None:
        self._given = model, arch
        self.device = choose_device(device)
        self.self_ensemble = self_ensemble
        computes: Precision = "fp32" if precision == "auto" else precision
        self._last_size: tuple[int, ...] = ()
        self.dtype, engine = _choose(computes, engine, self.device)

        def prepare(model_file: ModelFile) -> _Runner:
            network = copy.deepcopy(model_file.network).eval().to(self.device)
            runs_in = engine_for(network, engine, self.dtype)
            cropping = AdaptiveCropping(network, mode=crop, crop_size=crop_size, memory=memory, scratch=scratch)
            name = model_file.name or type(network).__name__
            runner = _Runner(name, cropping, model_file.value_range, self.device, computes, runs_in)
            if runs_in != "auto":
                runner.dtype  # noqa: B018 - an engine that cannot run it is refused now, not when a first image comes
            return runner

        @cache
        def of_zoo(scale: int) -> _Runner:
            return prepare(load_model(students[scale].path))

        preparing = threading.Lock()  # a network is prepared once, however many threads ask for it

        def in_turn(scale: int) -> _Runner:
            with preparing:
                return of_zoo(scale)

        if model is None:
            students = zoo.defaults(fast=fast)
            self._scales = sorted(students)
            self._runner: Callable[[int], _Runner] = in_turn
        else:
            runner = prepare(_open(model, arch))
            self._scales = [runner.info.scale]
            self._runner = lambda _: runner

    def _source(self) -> tuple[Path | None, ModelFile]:
        model, arch = self._given
        if model is None:
            raise InputError(
                "this Upscaler has a student for each scale; make one of the student to save, Upscaler(NAME)",
                code="hub.many-models",
            )
        path = None if isinstance(model, (nn.Module, ModelFile)) else zoo.locate(model)
        return path, _open(model, arch)

    @property
    def scale(self) -> int:
        """Default scale: that of the network, or the largest of several."""
        return max(self._scales)

    @property
    def restores(self) -> bool:
        """Whether the network works at scale 1 on images as they are: it denoises, deblurs, ..."""
        return self._scales == [1] and not self._runner(1).info.enlarged_input

    def networks(self, given: Size, target: Size) -> list[NetworkRun]:
        """The networks that bring an image to a size, in the order in which they run; none where it does not grow.

        Args:
            given: height and width of the image, px.
            target: those of the result.
        """
        return [runner.described for runner in self._runners(given, target)]

    def most_pixels(self, given: Size, target: Size) -> int:
        """Pixels of the largest picture that is made on the way from one size to another.

        Args:
            given: height and width of the image, px.
            target: those of the result.
        """
        growth = math.prod(self._passes(given, target))
        return max(math.prod(target), growth**2 * math.prod(given))

    @overload
    def __call__(
        self,
        image: str | Path,
        scale: float | None = None,
        *,
        size: tuple[int, int] | None = None,
        fit: tuple[int, int] | None = None,
        on_progress: Progress | None = None,
    ) -> Picture: ...

    @overload
    def __call__(
        self,
        image: AnyImage,
        scale: float | None = None,
        *,
        size: tuple[int, int] | None = None,
        fit: tuple[int, int] | None = None,
        on_progress: Progress | None = None,
    ) -> AnyImage: ...

    def __call__(
        self,
        image: str | Path | Picture | Image.Image | ImageArray | Tensor,
        scale: float | None = None,
        *,
        size: tuple[int, int] | None = None,
        fit: tuple[int, int] | None = None,
        on_progress: Progress | None = None,
    ) -> Picture | Image.Image | ImageArray | Tensor:
        """Upscale `image`.

        The nearest network at or above the scale is run (several one after the other if none is large enough), and the
        result is brought to the size with MATLAB's bicubic. A network of scale 1 restores the image at its own size,
        or gets it upscaled beforehand if it asks for that (`ModelInfo.enlarged_input`: IMDN_AS); the others are not
        run where the target is not larger than the image.

        Args:
            image: the path of an image file (of an animation the first frame), or a `Picture` read from one; a PIL
                image; an array H x W, H x W x 2 (grey and alpha), H x W x 3 or H x W x 4 of uint8, uint16 (full range
                of the type) or float32 (nominally 0 to 1); or a tensor C x H x W or N x C x H x W of uint8 or floating
                point. Alpha is enlarged by itself.
            scale: any number from 1 up (default: that of the network).
            size: of the result, instead of `scale`: (width, height) for paths, pictures and PIL images, as in PIL and
                on the command line; (height, width) for arrays and tensors, as in their shapes.
            fit: largest size of a result that keeps its aspect ratio, instead of `scale`; in the same order as `size`.
            on_progress: called with the finished part, in (0, 1], while the network runs.

        Returns:
            The result, of the kind and type of `image`; a `Picture` for a path, with the profile and EXIF of the file
            (`imdn_kd.image.io.write_image` writes it). Integers are clamped and rounded, floats are not clamped. PIL
            images of other modes than L, LA, RGB, RGBA and I;16 come back in the nearest of these.

        Raises:
            InputError: an image or size that is not possible, or not enough memory.
        """
        if scale is None and size is None and fit is None:
            scale = self.scale
        if isinstance(image, (str, Path)):
            image = read_image(Path(image))
        if isinstance(image, (Picture, Image.Image)):
            size, fit = size and (size[1], size[0]), fit and (fit[1], fit[0])

        def enlarge(pixels: ImageArray) -> ImageArray:
            target = target_size(pixels.shape[:2], scale=scale, size=size, fit=fit)
            try:
                return self._with_alpha(pixels, target, on_progress)
            except (MemoryError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise InputError(
                        f"not enough memory to upscale {pixels.shape[1]}x{pixels.shape[0]} px to "
                        f"{target[1]}x{target[0]} px; ask for a smaller size, or use crop mode 'exact' with less "
                        "memory",
                        code="inference.out-of-memory",
                    ) from error
                raise

        if isinstance(image, Picture):
            return replace(image, pixels=enlarge(image.pixels))
        if isinstance(image, Image.Image):
            return Image.fromarray(enlarge(pixels_of(image)))
        if isinstance(image, Tensor):
            return _map_tensor(enlarge, image)
        _check_pixels(image)
        return enlarge(image)

    def _with_alpha(self, pixels: ImageArray, target: Size, on_progress: Progress | None) -> ImageArray:
        planes = pixels[..., None] if pixels.ndim == 2 else pixels
        if planes.shape[2] in (1, 3):
            return self._enlarge(planes, target, on_progress).reshape(*target, *pixels.shape[2:])
        colour, alpha = planes[..., :-1], planes[..., -1]
        flat = bool((alpha == alpha.flat[0]).all())
        parts = 1 if flat else 2
        large_colour = self._enlarge(bleed_alpha(colour, alpha), target, _part_of(on_progress, 0, parts))
        if flat:
            large_alpha = np.full((*target, 1), alpha.flat[0], alpha.dtype)
        else:
            large_alpha = self._enlarge(alpha[..., None], target, _part_of(on_progress, 1, parts))
        return np.concatenate((large_colour, large_alpha), 2)

    def _enlarge(self, pixels: ImageArray, target: Size, on_progress: Progress | None) -> ImageArray:
        """`pixels` H x W x 1 or H x W x 3 to `target`."""
        if self.most_pixels(pixels.shape[:2], target) > MAX_PIXELS:
            raise InputError(
                f"{target[1]}x{target[0]} px from {pixels.shape[1]}x{pixels.shape[0]} px would take a picture of more "
                f"than {MAX_PIXELS} px; ask for a smaller size",
                code="size.too-large",
            )
        runners = self._runners(pixels.shape[:2], target)
        if self._scales == [1] and pixels.shape[:2] != target and not self.restores:
            pixels = imresize(pixels, size=target)
        work, dtype = pixels, pixels.dtype
        for number, runner in enumerate(runners):
            reached = tuple(side * runner.info.scale for side in work.shape[:2]) == target
            progress = _part_of(on_progress, number, len(runners))
            # Only the last step may round, so that values are rounded once.
            work = self._run(runner, work, dtype if reached else np.dtype(np.float32), progress)
        if work.shape[:2] != target:
            work = imresize(work, size=target)
        if self.device.type == "cpu" and pixels.shape[:2] != self._last_size:
            # Otherwise the process grows with each new size; frames of a video need not pay.
            self._last_size = pixels.shape[:2]
            trim_heap()
        return _to_dtype(work, dtype)

    def _passes(self, given: Size, target: Size) -> list[int]:
        return [] if self._scales == [1] else plan_passes(given, target, self._scales)

    def _runners(self, given: Size, target: Size) -> list[_Runner]:
        return [self._runner(scale) for scale in ([1] if self._scales == [1] else self._passes(given, target))]

    def _run(
        self, runner: _Runner, pixels: ImageArray, dtype: np.dtype[Any], on_progress: Progress | None
    ) -> ImageArray:
        if not self.self_ensemble:
            return runner.run(pixels, dtype, on_progress)
        total: ImageArray = np.zeros((), np.float32)
        for number in range(8):
            turned = runner.run(_turn(pixels, number), np.dtype(np.float32), _part_of(on_progress, number, 8))
            total = total + _turn_back(turned, number)
        return _to_dtype(total / np.float32(8), dtype)


@dataclass(frozen=True)
class _Runner:
    """A network on its device, run from pixels to pixels."""

    name: str
    cropping: AdaptiveCropping
    value_range: float
    device: torch.device
    precision: Precision
    engine: str
    choosing: threading.Lock = field(default_factory=threading.Lock)

    @property
    def info(self) -> ModelInfo:
        return self.cropping.info

    @property
    def dtype(self) -> torch.dtype:
        """Of the tensors that the network takes; what runs it is chosen when this is first asked for."""
        return self._choice[0]

    @property
    def described(self) -> NetworkRun:
        """What it is, and what runs it; chosen when this is first asked for."""
        return NetworkRun(self.name, self._choice[1], self.precision, str(self.device))

    @property
    def _choice(self) -> tuple[torch.dtype, str]:
        with self.choosing, all_threads():
            return self._chosen

    @cached_property
    def _chosen(self) -> tuple[torch.dtype, str]:
        """The type of the tensors that the network takes, and what runs it."""
        network = self.cropping.network
        engine = None
        if self.engine != TORCH:
            engine = choose_engine(self.engine, network, self.info, self.value_range, self.precision)
        if engine is not None:
            self.cropping.use(engine)
            return torch.float32, engine.name
        dtype = choose_dtype(self.precision, self.device)
        network.to(dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return dtype, network.runtime if isinstance(network, GraphNetwork) else TORCH

    def run(self, pixels: ImageArray, dtype: np.dtype[Any], on_progress: Progress | None) -> ImageArray:
        """`pixels` H x W x C (C is 1 or 3) to sH x sW x C of `dtype`; channels are made to suit the network."""
        given, wanted = pixels.shape[2], self.info.num_in_ch
        if given == wanted:
            return self._run(pixels, dtype, on_progress)
        if (given, wanted) == (1, 3):
            colours = self._run(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), np.dtype(np.float32), on_progress)
            return _to_dtype(colours @ _LUMA[:, None], dtype)
        if (given, wanted) == (3, 1):
            planes = (self._run(pixels[..., k : k + 1], dtype, _part_of(on_progress, k, 3)) for k in range(3))
            return np.concatenate(list(planes), 2)
        raise InputError(
            f"the network takes images of {wanted} channels, this one has {given}", code="image.channels-mismatch"
        )

    def _run(self, pixels: ImageArray, dtype: np.dtype[Any], on_progress: Progress | None) -> ImageArray:
        height, width, channels = pixels.shape
        result = np.empty((self.info.scale * height, self.info.scale * width, channels), dtype)
        source = PixelBuffer(pixels, white=self.value_range, dtype=self.dtype, device=self.device)
        self.cropping.run(source, PixelBuffer(result, white=self.value_range), on_progress)
        return result


def _choose(precision: Precision, engine: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The type that is computed in, and the engine or `auto`; what is not there is refused.

    On GPUs `auto` is PyTorch.
    """
    if device.type != "cpu":
        if engine not in ("auto", TORCH):
            raise InputError(
                f"engine {engine!r} runs on the CPU; use device 'cpu', or engine 'torch'", code="engine.cpu-only"
            )
        return choose_dtype(precision, device), TORCH
    dtype = dtype_of(precision)
    if engine == TORCH or (engine == "auto" and dtype == torch.float16 and not candidates(precision)):
        choose_dtype(precision, device)
    elif engine != "auto":
        find_engine(engine, precision)
    return dtype, engine


def _open(model: str | Path | nn.Module | ModelFile, arch: Mapping[str, Any] | None) -> ModelFile:
    if isinstance(model, ModelFile):
        return model
    if isinstance(model, nn.Module):
        return ModelFile(wrap(model))
    return open_model(model, arch)


def _check_pixels(pixels: ImageArray) -> None:
    shape_fits = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (1, 2, 3, 4))
    if not shape_fits or pixels.size == 0:
        raise InputError(
            f"an image is H x W or H x W x 1 to 4, not empty; got an array of shape {pixels.shape}", code="image.shape"
        )
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(
            f"pixels of type {pixels.dtype} cannot be used; convert them to uint8, uint16 or float32",
            code="image.dtype",
        )


def _map_tensor(enlarge: Callable[[ImageArray], ImageArray], image: Tensor) -> Tensor:
    if image.dim() not in (3, 4) or 0 in image.shape or (image.dtype != torch.uint8 and not image.is_floating_point()):
        raise InputError(
            f"a tensor image is C x H x W or N x C x H x W of uint8 or floats; got {image.dtype} {tuple(image.shape)}",
            code="image.shape",
        )
    batch = image if image.dim() == 4 else image[None]
    arrays = batch.detach().permute(0, 2, 3, 1).cpu()
    results = []
    for array in (arrays if image.dtype == torch.uint8 else arrays.float()).numpy():
        _check_pixels(array)
        results.append(torch.from_numpy(enlarge(array)).permute(2, 0, 1))
    large = torch.stack(results).to(image.device, image.dtype)
    return large if image.dim() == 4 else large[0]


def _to_dtype(pixels: ImageArray, dtype: np.dtype[Any]) -> ImageArray:
    if pixels.dtype == dtype:
        return pixels
    result: ImageArray = np.empty(pixels.shape, dtype)
    if dtype.kind == "f":
        result[...] = pixels
    else:
        top = np.iinfo(dtype).max
        result[...] = np.rint(pixels * np.float32(top)).clip(0, top)
    return result


def _turn(pixels: ImageArray, number: int) -> ImageArray:
    """One of the eight flips and turns of H x W x C."""
    pixels = pixels[:: -1 if number & 1 else 1, :: -1 if number & 2 else 1]
    return pixels.swapaxes(0, 1) if number & 4 else pixels


def _turn_back(pixels: ImageArray, number: int) -> ImageArray:
    pixels = pixels.swapaxes(0, 1) if number & 4 else pixels
    return pixels[:: -1 if number & 1 else 1, :: -1 if number & 2 else 1]


def _part_of(on_progress: Progress | None, number: int, count: int) -> Progress | None:
    if on_progress is None:
        return None
    return lambda part: on_progress((number + part) / count)
