"""Benchmark of models on data sets: PSNR and SSIM by a stated protocol, and by alternative protocols for comparison."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from imdn_kd import zoo
from imdn_kd.data.benchmark_sets import ImagePair, ImageSet, find_set
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.errors import InputError, naming
from imdn_kd.evaluation.metrics import psnr, ssim, to_grey
from imdn_kd.evaluation.protocol import PROTOCOLS, Protocol, usual_protocol
from imdn_kd.image.io import Picture, read_image, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage
from imdn_kd.inference.device import Precision
from imdn_kd.inference.model_file import load_model
from imdn_kd.inference.upscaler import Upscaler

BICUBIC = "bicubic"
"""Name of the baseline among models."""

INPUT = "input"
"""Its name at scale 1, where it is the input itself."""

_WARM_UP_SIDE = 48


@dataclass(frozen=True)
class Upsampler:
    """A model or method under test, which enlarges images by one factor, or restores them (scale 1).

    Attributes:
        name: shown in tables.
        scale: the factor, 1 or more.
        enlarge: from H x W x 3 RGB or H x W grey, uint8, to sH x sW x 3 or sH x sW.
        run: precision and device, shown below tables.
    """

    name: str
    scale: int
    enlarge: Callable[[RgbImage], RgbImage]
    run: str = ""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise InputError(
                f"scale {self.scale} cannot be scored; give a whole factor of 1 or more", code="benchmark.scale"
            )


@dataclass(frozen=True)
class EvalTask:
    """One upsampler to be scored on one data set."""

    upsampler: Upsampler
    images: ImageSet


@dataclass(frozen=True)
class ImageScore:
    """PSNR in dB (inf for equal images) and SSIM of one image, and the seconds that enlarging it took."""

    name: str
    psnr: float
    ssim: float
    seconds: float


@dataclass(frozen=True)
class AltProtocol:
    """Mean PSNR in dB and mean SSIM of the same images by an alternative protocol."""

    name: str
    protocol: Protocol
    psnr: float
    ssim: float


@dataclass(frozen=True)
class SetScore:
    """The scores of one model on one data set.

    Attributes:
        model: name of the model.
        scale: the factor.
        data: name of the data set.
        lr_source: where the LR images come from.
        run: precision and device of the model.
        protocol: that of the scores.
        images: one score per image.
        alternatives: the same images by the other `PROTOCOLS`, with `explain`.
        notes: lines on the data set, shown below tables.
    """

    model: str
    scale: int
    data: str
    lr_source: str
    run: str
    protocol: Protocol
    images: tuple[ImageScore, ...]
    alternatives: tuple[AltProtocol, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def psnr(self) -> float:
        """Mean of the PSNR of the images, dB."""
        return fmean(image.psnr for image in self.images)

    @property
    def ssim(self) -> float:
        """Mean of the SSIM of the images."""
        return fmean(image.ssim for image in self.images)

    @property
    def seconds(self) -> float:
        """Mean seconds per image."""
        return fmean(image.seconds for image in self.images)


def bicubic(scale: int) -> Upsampler:
    """The baseline: MATLAB's bicubic enlargement; at scale 1 the input as it is."""
    return Upsampler(INPUT if scale == 1 else BICUBIC, scale, lambda lr: imresize(lr, scale))


def make_upsampler(upscaler: Upscaler, name: str, scale: int | None = None) -> Upsampler:
    """Make an upsampler from an `Upscaler`, by default at the scale of its network.

    Raises:
        InputError: `benchmark.scale`, a scale below 1, 1 for a network of another, or none given for a network that
            takes any.
    """
    if scale is None and upscaler.scale == 1 and not upscaler.restores:
        raise InputError(f"{name} enlarges by any factor; say by which (scale)", code="benchmark.scale")
    factor = upscaler.scale if scale is None else scale
    if factor == 1 < upscaler.scale:
        raise InputError(
            f"{name} enlarges by {upscaler.scale}; at scale 1, give a model that restores images",
            code="benchmark.scale",
        )
    run = f"{str(upscaler.dtype).removeprefix('torch.')} on {upscaler.device}"
    return Upsampler(name, factor, lambda lr: upscaler(lr, factor), run)


def open_upsamplers(
    models: Sequence[str | Path] = (),
    *,
    scale: int | None = None,
    arch: Mapping[str, Any] | None = None,
    key: str | None = None,
    device: str = "auto",
    precision: Precision = "fp32",
    engine: str = "torch",
    self_ensemble: bool = False,
) -> list[Upsampler]:
    """Open models for a benchmark, named as in the zoo or by the stem of their files.

    Args:
        models: names of students of the zoo, model files, or `bicubic` or `input` for the baseline at the factors of
            the others (see `bicubic`); none for the best student of each scale, or of `scale`.
        scale: the factor; by default that of each network. A network made for another factor is brought to it as in
            `Upscaler`, which its name then says.
        arch: the network of model files that do not say it; see `load_model`.
        key: which set of weights of a checkpoint; see `load_model`.
        device: see `Upscaler`.
        precision: see `Upscaler`; published figures are fp32.
        engine: see `Upscaler`.
        self_ensemble: see `Upscaler`.

    Raises:
        InputError: as `Upscaler` and `make_upsampler`.
    """
    chosen = [str(model) for model in models] or _students(scale)
    stems = [Path(model).stem if Path(model).is_file() else model for model in chosen]
    counts = Counter(stems)
    opened: list[Upsampler] = []
    for model, stem in zip(chosen, stems, strict=True):
        if model in (BICUBIC, INPUT):
            continue
        spec = None if zoo.find(model) and len(chosen) > 1 else arch
        file = load_model(model, spec, key=key)
        upscaler = Upscaler(file, device=device, precision=precision, engine=engine, self_ensemble=self_ensemble)
        name = stem if counts[stem] == 1 else model
        if scale is not None and upscaler.scale != scale and (upscaler.scale > 1 or upscaler.restores):
            name += f" (x{upscaler.scale} network)"
        opened.append(make_upsampler(upscaler, f"{name} (self-ensemble)" if self_ensemble else name, scale))
    if BICUBIC in chosen or INPUT in chosen:
        factors = {scale} if scale else {one.scale for one in opened}
        if not factors:
            raise InputError("bicubic enlarges by any factor; say by which (scale)", code="benchmark.scale")
        opened = [*(bicubic(factor) for factor in sorted(factors)), *opened]
    return opened


def plan_tasks(
    upsamplers: Sequence[Upsampler], data: Sequence[DataSource | str | Path], *, root: Path | str = "datasets"
) -> list[EvalTask]:
    """Find and read all data before the first image is enlarged, so that what is missing is known at once.

    Args:
        upsamplers: to be scored.
        data: folders, or names of folders in `root`; see `find_set`.
        root: folder of all data sets.

    Returns:
        All pairs of upsampler and data set, upsampler by upsampler.

    Raises:
        InputError: `benchmark.nothing-to-do`, no models or no data; as `find_set` and `ImageSet.checked`.
    """
    if not upsamplers:
        raise InputError("nothing to score; name a model", code="benchmark.nothing-to-do")
    if not data:
        raise InputError(
            "no data to score on; name a folder of images or a data set such as Set5", code="benchmark.nothing-to-do"
        )
    sets = {
        scale: [find_set(source, scale, root=root).checked() for source in data]
        for scale in sorted({model.scale for model in upsamplers})
    }
    return [EvalTask(model, images) for model in upsamplers for images in sets[model.scale]]


def protocol_of(images: ImageSet) -> Protocol:
    """The protocol of published tables for a data set."""
    return usual_protocol(images.scale, images.steps if images.lr is None else (), grey=images.grey)


def check_names(tasks: Sequence[EvalTask]) -> None:
    """Raise InputError where the saved images of two tasks would have the same names."""
    names = Counter((task.upsampler.name, task.upsampler.scale, _folder_name(task.images)) for task in tasks)
    (_, _, data), number = names.most_common(1)[0]
    if number > 1:
        raise InputError(
            f"{number} of the data sets are called {data}; save the images of one at a time", code="benchmark.same-name"
        )


def score(
    task: EvalTask,
    *,
    protocol: Protocol | None = None,
    explain: bool = False,
    save: Path | str | None = None,
    on_image: Callable[[int], None] | None = None,
) -> SetScore:
    """Score one upsampler on one data set.

    HR images are cropped to a multiple of the scale; results are clamped and rounded to 8 bit before they are
    measured, as for the tables of papers.

    Args:
        task: see `plan_tasks`.
        protocol: how images are measured (default: `protocol_of`).
        explain: measure by the other `PROTOCOLS` as well.
        save: folder for the results, as `x4/Set5/baby_MODEL.png` or `x1/Set5_noise_sigma_25/baby_MODEL.png`; images
            that exist are replaced.
        on_image: called after each image with its px.

    Raises:
        InputError: an image that cannot be used, or is too small to be measured, or a result that cannot be written.
    """
    model, images = task.upsampler, task.images
    protocol = protocol or protocol_of(images)
    protocol = replace(protocol, space="grey") if images.grey else protocol
    alternatives = _alternatives(protocol, images) if explain else {}
    scores: list[ImageScore] = []
    by_other: dict[str, list[tuple[float, float]]] = {name: [] for name in alternatives}
    for number, pair in enumerate(images.pairs):
        hr, lr = images.load(pair)
        with naming(pair.hr):
            if number == 0:
                # Warm-up: the first run of a network sets things up.
                model.enlarge(lr[:_WARM_UP_SIDE, :_WARM_UP_SIDE])
            start = time.perf_counter()
            sr = model.enlarge(lr)
            seconds = time.perf_counter() - start
        if save is not None:
            folder = Path(save) / f"x{model.scale}" / _folder_name(images)
            name = f"{pair.name}_{_file_name(model.name)}.png"
            write_image(folder / name, Picture(sr), overwrite=True)
        scores.append(ImageScore(pair.name, *_measure(sr, hr, pair, model.scale, protocol), seconds))
        for name, other in alternatives.items():
            by_other[name].append(_measure(sr, hr, pair, model.scale, other))
        if on_image:
            on_image(sr.shape[0] * sr.shape[1])
    means = (
        AltProtocol(name, other, *(fmean(column) for column in zip(*by_other[name], strict=True)))
        for name, other in alternatives.items()
    )
    place = images.name, images.lr_source
    return SetScore(model.name, model.scale, *place, model.run, protocol, tuple(scores), tuple(means), images.notes)


def benchmark(
    upsamplers: Sequence[Upsampler],
    data: Sequence[DataSource | str | Path],
    *,
    root: Path | str = "datasets",
    protocol: Protocol | None = None,
    explain: bool = False,
    save: Path | str | None = None,
) -> list[SetScore]:
    """Score every upsampler on every data set: `plan_tasks`, then `score` for each task."""
    tasks = plan_tasks(upsamplers, data, root=root)
    if save is not None:
        check_names(tasks)
    return [score(task, protocol=protocol, explain=explain, save=save) for task in tasks]


def _students(scale: int | None) -> list[str]:
    students = zoo.defaults()
    if scale is None:
        return [students[key].name for key in sorted(students)]
    if scale == 1:
        raise InputError("no student restores images (scale 1); name a model file", code="zoo.no-student")
    if scale not in students:
        there = ", ".join(f"x{key}" for key in sorted(students))
        raise InputError(f"there is no student for x{scale} (there: {there}); name a model file", code="zoo.no-student")
    return [students[scale].name]


def _alternatives(protocol: Protocol, images: ImageSet) -> dict[str, Protocol]:
    """The `PROTOCOLS` that measure these images in another way than `protocol`, and than each other."""
    seen, found = {_what_counts(protocol, images.scale)}, {}
    for name, known in PROTOCOLS.items():
        other = replace(known, space="grey") if images.grey else known
        if (counts := _what_counts(other, images.scale)) not in seen:
            seen.add(counts)
            found["y" if known == Protocol() else name] = other
    return found


def _what_counts(protocol: Protocol, scale: int) -> tuple[object, ...]:
    return protocol.space, protocol.border(scale), protocol.ssim_window


def _measure(sr: RgbImage, hr: RgbImage, pair: ImagePair, scale: int, protocol: Protocol) -> tuple[float, float]:
    if protocol.space == "y-grey" and read_image(pair.hr).channels < 3:
        sr, hr = to_grey(sr), hr[..., 0]
    figures = psnr(sr, hr, scale, protocol), ssim(sr, hr, scale, protocol)
    if any(math.isnan(figure) for figure in figures):
        raise InputError(
            f"{pair.hr}: {hr.shape[1]}x{hr.shape[0]} px are too few to be measured; remove it", code="image.too-small"
        )
    return figures


def _folder_name(images: ImageSet) -> str:
    """Of saved results: one data set may be degraded in several ways."""
    return images.name if images.scale > 1 or images.lr else _file_name(f"{images.name}_{images.lr_source}")


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
