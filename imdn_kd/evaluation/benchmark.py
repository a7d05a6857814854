"""Benchmark of models on data sets: PSNR and SSIM by a stated protocol, and by alternative protocols for comparison."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from imdn_kd import __version__, zoo
from imdn_kd.data.benchmark_sets import ImagePair, ImageSet, find_set
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.errors import InputError, naming
from imdn_kd.evaluation.metrics import psnr, ssim, to_grey
from imdn_kd.evaluation.protocol import PROTOCOLS, Protocol, usual_protocol
from imdn_kd.evaluation.score_log import ScoreLog
from imdn_kd.image.io import Picture, read_image, write_image
from imdn_kd.image.resize import imresize
from imdn_kd.image.rgb import RgbImage
from imdn_kd.inference.device import Precision
from imdn_kd.inference.fingerprint import fingerprint
from imdn_kd.inference.graph_file import open_model
from imdn_kd.inference.model_names import names_of
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
        identity: tells it from all that give other results; scores of one without identity are not kept.
    """

    name: str
    scale: int
    enlarge: Callable[[RgbImage], RgbImage]
    run: str = ""
    identity: str = ""

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
        left: images of the data set that are not measured yet.
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
    left: int = 0

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
    return Upsampler(INPUT if scale == 1 else BICUBIC, scale, lambda lr: imresize(lr, scale), identity=BICUBIC)


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
    """Open models for a benchmark, named as `names_of` does.

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
    opened: list[Upsampler] = []
    for model, name in zip(chosen, names_of(chosen), strict=True):
        if model in (BICUBIC, INPUT):
            continue
        spec = None if zoo.find(model) and len(chosen) > 1 else arch
        file = open_model(model, spec, key=key)
        upscaler = Upscaler(file, device=device, precision=precision, engine=engine, self_ensemble=self_ensemble)
        if scale is not None and upscaler.scale != scale and (upscaler.scale > 1 or upscaler.restores):
            name = f"{name} (x{upscaler.scale} network)"
        upsampler = make_upsampler(upscaler, f"{name} (self-ensemble)" if self_ensemble else name, scale)
        identity = f"{fingerprint(file.network)} {file.value_range} {engine} {self_ensemble} {upsampler.run}"
        opened.append(replace(upsampler, identity=identity))
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


@dataclass(frozen=True)
class _Measured:
    """What is known of an image: its scores, PSNR and SSIM by the other protocols, checksum of the saved result."""

    score: ImageScore
    others: tuple[tuple[float, float], ...]
    saved: str


class Scoring:
    """One upsampler being scored on one data set; iterate to measure what is left, which gives the px of each image.

    HR images are cropped to a multiple of the scale; results are clamped and rounded to 8 bit before they are
    measured, as for the tables of papers.

    Args:
        task: see `plan_tasks`.
        protocol: how images are measured (default: `protocol_of`).
        explain: measure by the other `PROTOCOLS` as well.
        save: folder for the results, as `x4/Set5/baby_MODEL.png` or `x1/Set5_noise_sigma_25/baby_MODEL.png`; images
            that exist are replaced.
        keep: keep scores on the disk until `forget`, and begin with those that are there, of the same weights, images,
            protocol and precision.
    """

    def __init__(
        self,
        task: EvalTask,
        *,
        protocol: Protocol | None = None,
        explain: bool = False,
        save: Path | str | None = None,
        keep: bool = False,
    ) -> None:
        self._model, self._images = task.upsampler, task.images
        protocol = protocol or protocol_of(self._images)
        self._protocol = replace(protocol, space="grey") if self._images.grey else protocol
        self._others = _alternatives(self._protocol, self._images) if explain else {}
        self._save = None if save is None else Path(save) / f"x{self._model.scale}" / _folder_name(self._images)
        self._log = ScoreLog(self._key()) if keep and self._model.identity else None
        self._measured: dict[str, _Measured] = {}
        for pair in self._images.pairs:
            if self._log is not None and pair.name in self._log.kept:
                kept = self._log.kept[pair.name]
                others = tuple((psnr, ssim) for psnr, ssim in kept["others"])
                measured = _Measured(ImageScore(**kept["score"]), others, kept["saved"])
                if self._save is None or measured.saved == _checksum(self._target(pair)):
                    self._measured[pair.name] = measured

    @property
    def left(self) -> int:
        """Images that are not measured yet."""
        return len(self._images.pairs) - len(self._measured)

    @property
    def kept(self) -> bool:
        """Whether what is measured is kept on the disk."""
        return self._log is not None and self._log.works

    def __iter__(self) -> Iterator[int]:
        """Measure.

        Raises:
            InputError: an image that cannot be used, or is too small to be measured, or a result that cannot be
                written.
        """
        model, warm = self._model, False
        for pair in self._images.pairs:
            if pair.name in self._measured:
                continue
            hr, lr = self._images.load(pair)
            with naming(pair.hr):
                if not warm:
                    # The first run of a network sets things up.
                    model.enlarge(lr[:_WARM_UP_SIDE, :_WARM_UP_SIDE])
                    warm = True
                start = time.perf_counter()
                sr = model.enlarge(lr)
                seconds = time.perf_counter() - start
            if self._save is not None:
                write_image(self._target(pair), Picture(sr), overwrite=True)
            score = ImageScore(pair.name, *_measure(sr, hr, pair, model.scale, self._protocol), seconds)
            others = tuple(_measure(sr, hr, pair, model.scale, other) for other in self._others.values())
            measured = _Measured(score, others, "" if self._save is None else _checksum(self._target(pair)))
            self._measured[pair.name] = measured
            if self._log is not None:
                self._log.add(pair.name, asdict(measured))
            yield sr.shape[0] * sr.shape[1]

    def result(self) -> SetScore | None:
        """The scores so far; None if there are none."""
        if not self._measured:
            return None
        model, images = self._model, self._images
        measured = [self._measured[pair.name] for pair in images.pairs if pair.name in self._measured]
        by_other = zip(*(one.others for one in measured), strict=True)
        means = tuple(
            AltProtocol(name, other, *(fmean(column) for column in zip(*figures, strict=True)))
            for (name, other), figures in zip(self._others.items(), by_other, strict=True)
        )
        return SetScore(
            *(model.name, model.scale, images.name, images.lr_source, model.run, self._protocol),
            *(tuple(one.score for one in measured), means, images.notes, self.left),
        )

    def forget(self) -> None:
        """Remove the scores from the disk."""
        if self._log is not None:
            self._log.forget()

    def _target(self, pair: ImagePair) -> Path:
        assert self._save is not None  # noqa: S101 - asked only then
        return self._save / f"{pair.name}_{_file_name(self._model.name)}.png"

    def _key(self) -> str:
        """Checksum of all that scores depend on."""
        images = self._images
        what = [
            *(__version__, self._model.identity, images.scale, images.grey, str(images.lr or images.steps)),
            [[pair.name, _checksum(pair.hr), pair.lr and _checksum(pair.lr)] for pair in images.pairs],
            *(str(self._protocol), str(self._others)),
            self._save and [str(self._save.absolute()), self._model.name],
        ]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def score(
    task: EvalTask,
    *,
    protocol: Protocol | None = None,
    explain: bool = False,
    save: Path | str | None = None,
    on_image: Callable[[int], None] | None = None,
) -> SetScore:
    """Score one upsampler on one data set; errors as `Scoring`.

    Args:
        task: see `Scoring`.
        protocol: see `Scoring`.
        explain: see `Scoring`.
        save: see `Scoring`.
        on_image: called after each image with its px.
    """
    scoring = Scoring(task, protocol=protocol, explain=explain, save=save)
    for pixels in scoring:
        if on_image:
            on_image(pixels)
    result = scoring.result()
    assert result is not None  # noqa: S101 - a data set has images
    return result


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
        there = ", ".join(each.name for each in zoo.students() if each.scale == 1) or "none"
        raise InputError(
            f"at scale 1 it depends on what is to be removed; name a student ({there}) or a model file",
            code="zoo.no-student",
        )
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


def _checksum(path: Path) -> str:
    """Of a file; empty if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
