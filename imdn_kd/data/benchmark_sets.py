"""Benchmark data sets: the HR images in a folder, and their LR images for a scale."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from imdn_kd.data.degradation_schema import Bicubic, Step, check_steps, name_of_steps
from imdn_kd.data.degradations import degrade
from imdn_kd.data.layouts.names import HR_FOLDERS, LR_FOLDERS, LR_NAMES, DataSource
from imdn_kd.data.layouts.restoration import find_clean_folder, find_input_folder
from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images
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
    """

    name: str
    scale: int
    lr: Path | None
    pairs: tuple[ImagePair, ...]
    steps: tuple[Step, ...] = ()
    grey: bool = False

    @property
    def lr_source(self) -> str:
        """Source of the LR images, shown in tables."""
        return name_of_steps(self.steps) if self.lr is None else f"{self.lr.name} (files)"

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
    """Find the images of a data set.

    A folder with `HR/` (or BasicSR's `GTmod12/`) and perhaps `LRbicx2/` and the like, or a plain folder of HR images.
    Without LR files for the scale, or with `DataSource.steps`, LR images are computed when loaded.

    Args:
        source: a folder, or the name of one in `root`.
        scale: 1 or more.
        root: folder of all data sets.

    Raises:
        InputError: `data.not-found`, `data.not-a-folder`, `data.no-images`, `data.same-name` for two HR images,
            `data.lr-missing`, an LR folder without the LR image of one, `data.no-inputs` at scale 1, or
            `degradation.steps`, steps that do not make LR images for the scale.
    """
    if not isinstance(source, DataSource):
        source = DataSource(source)
    folder = _folder(source.data, Path(root))
    if scale == 1:
        hr_folder = find_clean_folder(folder)
    else:
        hr_folder = next((folder / name for name in HR_FOLDERS if (folder / name).is_dir()), folder)
    originals = find_images(hr_folder)
    if not originals:
        raise InputError(
            f"{hr_folder}: has no images; put the HR images there, or into {hr_folder}/HR", code="data.no-images"
        )
    name, count = Counter(path.stem for path in originals).most_common(1)[0]
    if count > 1:
        raise InputError(f"{hr_folder}: has {count} images called {name}; keep one of them", code="data.same-name")
    steps = source.steps or (Bicubic(),)
    check_steps(steps, downscales=scale > 1)
    lr_folder = None if source.steps else _lr_folder(source, folder, hr_folder, scale)
    if scale == 1 and lr_folder is None and not source.steps:
        raise InputError(
            f"{folder}: at scale 1, bicubic images would be the HR images themselves; say how the inputs are made "
            "(--degrade noise=25), put them into a folder such as noisy/ beside the HR images, or, for a network that "
            "takes enlarged images, give their scale",
            code="data.no-inputs",
        )
    lr_images = _lr_images(originals, lr_folder, source.lr_name, scale)
    pairs = (ImagePair(hr.stem, hr, lr) for hr, lr in zip(originals, lr_images, strict=True))
    resolved = folder.resolve()
    default_name = resolved.parent.name if resolved.name in HR_FOLDERS else resolved.name
    return ImageSet(source.name or default_name, scale, lr_folder, tuple(pairs), steps, source.grey)


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


def _lr_folder(source: DataSource, folder: Path, hr_folder: Path, scale: int) -> Path | None:
    if source.lr is not None:
        return Path(source.lr)
    if scale == 1:
        return find_input_folder(hr_folder)
    if hr_folder == folder:
        return None
    usual = (folder / name.format(scale=scale) for name in LR_FOLDERS)
    return next((place for place in usual if place.is_dir()), None)


def _lr_images(originals: list[Path], folder: Path | None, lr_name: str | None, scale: int) -> list[Path | None]:
    if folder is None:
        return [None] * len(originals)
    # Not str.format: file names may have braces of their own.
    names = [name.replace("{scale}", str(scale)) for name in ((lr_name,) if lr_name else LR_NAMES)]
    there = {path.stem: path for path in find_images(folder)}
    lr_images: list[Path | None] = []
    for hr in originals:
        wanted = [name.replace("{}", hr.stem) for name in names]
        found = next((there[name] for name in wanted if name in there), None)
        if found is None:
            raise InputError(
                f"{folder}: has no LR image of {hr.name} (it would be called {' or '.join(wanted)}); "
                "add it, or move the folder away to have LR images made",
                code="data.lr-missing",
            )
        lr_images.append(found)
    return lr_images


def _size(image: RgbImage) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
