"""Benchmark data sets: the HR images in a folder, and their LR images for a scale."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from imdn_kd.data.degradation.schema import Bicubic, Step, check_steps, name_of_steps
from imdn_kd.data.degradation.steps import degrade
from imdn_kd.data.layouts.finder import lr_places
from imdn_kd.data.layouts.lr_index import LrIndex, best_index
from imdn_kd.data.layouts.names import DataSource
from imdn_kd.data.layouts.originals import find_originals, open_folder, path_of
from imdn_kd.data.layouts.restoration import find_clean_folder, find_input_folder
from imdn_kd.data.lr_check import compare_with_bicubic, describe_misfit
from imdn_kd.errors import InputError
from imdn_kd.image.rgb import RgbImage, read_grey, read_rgb

SEED = 0
"""Of the random numbers in degradations: the same for everyone, so that figures can be compared."""


@dataclass(frozen=True)
class ImagePair:
    """An HR image, and its LR image if that is a file; `name` is that of the HR image, less the suffix."""

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class ImageSet:
    """The images of a data set for one scale.

    Attributes:
        name: shown in tables.
        scale: side of the HR images / side of the LR images.
        lr: folder of the LR images; None if they are computed from the HR images.
        pairs: the images, by name.
        steps: degradations by which they are computed.
        grey: whether images are turned grey, see `read_grey`.
        lr_label: the folder as shown in tables, such as `LR_bicubic/X4`.
        notes: lines on files that are passed over, and on LR images that are not bicubic.
    """

    name: str
    scale: int
    lr: Path | None
    pairs: tuple[ImagePair, ...]
    steps: tuple[Step, ...] = ()
    grey: bool = False
    lr_label: str = ""
    notes: tuple[str, ...] = ()

    @property
    def lr_source(self) -> str:
        """Source of the LR images, shown in tables."""
        return name_of_steps(self.steps) if self.lr is None else f"{self.lr_label} (files)"

    def checked(self) -> ImageSet:
        """Load every pair, so that what is wrong is known at once, and note given LR images that are not bicubic.

        Raises:
            InputError: as `load`.
        """
        comparisons = []
        for pair in self.pairs:
            hr, lr = self.load(pair)
            if pair.lr is not None and self.scale > 1:
                comparisons.append((pair.name, compare_with_bicubic(hr, lr)))
        misfit = describe_misfit(comparisons)
        line = f"{self.name} x{self.scale}: of the LR images in {self.lr_label}, {misfit}"
        return replace(self, notes=(*self.notes, line)) if misfit else self

    def load(self, pair: ImagePair) -> tuple[RgbImage, RgbImage]:
        """Read a pair: the HR image, cropped at the bottom and right to a multiple of the scale, and its LR image.

        Returns:
            sH x sW x 3 and H x W x 3, RGB; or sH x sW and H x W, grey.

        Raises:
            InputError: an unreadable image, `image.too-small`, or `data.lr-size`, sizes that do not fit.
        """
        read = read_grey if self.grey else read_rgb
        hr = read(pair.hr)
        height, width = (side // self.scale for side in hr.shape[:2])
        if not height or not width:
            raise InputError(
                f"{pair.hr}: {_size(hr)} px are too few for scale {self.scale}; remove it from the set",
                code="image.too-small",
            )
        hr = hr[: height * self.scale, : width * self.scale]
        if pair.lr is None:
            # The key is that of `imdn-kd prepare`, so that its files are the same.
            return hr, degrade(hr, Fraction(self.scale), self.steps, f"{SEED} {pair.name} {self.scale}")
        lr = read(pair.lr)
        if lr.shape[:2] != (height, width):
            raise InputError(
                f"{pair.lr}: is {_size(lr)} px, but x{self.scale} of {pair.hr.name} needs {width}x{height}; "
                "make it again, or move the LR folder away to have it made",
                code="data.lr-size",
            )
        return hr, lr


def find_set(source: DataSource | str | Path, scale: int, *, root: Path | str = "datasets") -> ImageSet:
    """Find the images of a data set, in any of the published layouts; see `find_layout`.

    Without LR files for the scale, or with `DataSource.steps`, LR images are computed when loaded.

    Args:
        source: a folder, or the name of one in `root`.
        scale: 1 or more.
        root: folder of all data sets.

    Raises:
        InputError: `data.not-found`, `data.not-a-folder`, `data.no-images`, `data.several-sets`, `data.same-name` for
            two HR images, `data.lr-missing`, an LR folder without the LR image of one, `data.no-inputs` at scale 1, or
            `degradation.steps`, steps that do not make LR images for the scale.
    """
    if not isinstance(source, DataSource):
        source = DataSource(source)
    factor = Fraction(scale)
    folder = _folder(source.data, Path(root))
    if scale == 1:
        folder = find_clean_folder(folder)
    steps = source.steps or (Bicubic(),)
    check_steps(steps, downscales=scale > 1)
    layout, originals = find_originals(folder, [factor])
    stems = [path.stem for path in originals]
    passed = list(layout.passed_over)
    index: LrIndex | None
    if source.steps:
        index, label = None, ""
    elif (given := _lr_folder(source, folder, scale)) is not None:
        index = best_index(lr_places(open_folder(given), factor), factor, stems, source.lr_name)
        label = given.name
    else:
        choice = layout.choose_lr(factor, stems)
        index, label = choice.index, choice.label
        passed += choice.passed_over
    if scale == 1 and index is None and not source.steps:
        raise InputError(
            f"{folder}: at scale 1, bicubic images would be the HR images themselves; say how the inputs are made "
            "(--degrade noise=25), put them into a folder such as noisy/ beside the HR images, or, for a network that "
            "takes enlarged images, give their scale",
            code="data.no-inputs",
        )
    lr = [None if index is None else path_of(index.of(hr.stem, layout.hr.files[hr.name])) for hr in originals]
    pairs = tuple(ImagePair(hr.stem, hr, low) for hr, low in zip(originals, lr, strict=True))
    name = source.name or layout.title
    notes = tuple(f"{name} x{scale}: passed over: {line}" for line in passed)
    place = None if index is None else index.place.path
    return ImageSet(name, scale, place, pairs, steps, source.grey, label, notes)


def _folder(data: str | Path, root: Path) -> Path:
    if Path(data).is_dir():
        return Path(data)
    if Path(data).exists():
        raise InputError(
            f"{data}: is not a folder of images; a second model needs a --model of its own", code="data.not-a-folder"
        )
    if (root / data).is_dir():
        return root / data
    there = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())) if root.is_dir() else ""
    raise InputError(
        f"{data}: no such folder, nor a data set in {root} (there: {there or 'none'})", code="data.not-found"
    )


def _lr_folder(source: DataSource, folder: Path, scale: int) -> Path | None:
    """The folder of the LR images, where the user names it or, at scale 1, its own name tells."""
    if source.lr is not None:
        return Path(source.lr)
    return find_input_folder(folder) if scale == 1 else None


def _size(image: RgbImage) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
