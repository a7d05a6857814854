"""Sources of `imdn-kd prepare`: folders, archives, named sets, LMDBs, stores, photographs of scikit-image."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from imdn_kd.data.degradation.schema import Bicubic
from imdn_kd.data.degradation.steps import describe
from imdn_kd.data.layouts.file_tree import ImageFile, open_tree
from imdn_kd.data.lmdb_io import LmdbImages, common_keys
from imdn_kd.data.lr_check import compare_with_bicubic, describe_misfit
from imdn_kd.data.preparation.sources.catalogue import SAMPLE, Archive, NamedSet
from imdn_kd.data.preparation.sources.locations import Located, locate
from imdn_kd.data.preparation.sources.scan import SkippedImage, SourceImage, scan_dataset
from imdn_kd.data.store import Store
from imdn_kd.errors import InputError
from imdn_kd.image.io import decode_image
from imdn_kd.image.rgb import RgbImage, rgb_of

_LOOKED_AT = 8  # pairs that are compared with bicubic ones

Fetch = Callable[[Archive], None]
"""Downloads a missing archive into one of the places."""


@dataclass(frozen=True)
class Source:
    """The images of a data set, and where they come from.

    Attributes:
        name: name of the data set.
        label: its origin, without folders, which differ between machines.
        images: in the order of writing.
        skipped: HR images that cannot be used, with the reason.
        ignored: number of files that are no images.
        lq_made_by: degradations of the given LR images, as JSON, by scale, where known.
        warning: a warning for the user, or empty.
        notes: lines on LR files that are used, passed over, or not bicubic.
    """

    name: str
    label: str
    images: Sequence[SourceImage]
    skipped: Sequence[SkippedImage] = ()
    ignored: int = 0
    lq_made_by: Mapping[Fraction, Any] = field(default_factory=dict)
    warning: str = ""
    notes: Sequence[str] = ()


def named_source(
    named: NamedSet, places: Sequence[Path], given: Sequence[Fraction], made: Sequence[Fraction], fetch: Fetch
) -> Source:
    """Open a set of the catalogue in the first place that has it; download what is missing.

    Raises:
        InputError: `download.not-found` or as `download`; as `locate`.
    """
    found = locate(named, places, given)
    if not isinstance(found, Located):
        for archive in found:
            fetch(archive)
        found = locate(named, places, given)
        if not isinstance(found, Located):
            raise InputError(
                f"{named.title}: {found[0].name} was downloaded, but is not where it should be; try again",
                code="download.not-found",
            )
    scan = scan_dataset(found.hr, given, found.lr, made_scales=made)
    count = len(scan.images) + len(scan.skipped)
    warning = ""
    if count != named.images:
        warning = f"{found.hr.label}: has {count} images, {named.title} has {named.images}; unpack it again"
    made_by = dict.fromkeys(given, describe([Bicubic()]))
    notes = (*scan.notes, *_misfits(scan.images, given))
    return Source(named.title, named.title, scan.images, scan.skipped, scan.ignored, made_by, warning, notes)


def folder_source(
    path: Path, given: Sequence[Fraction], made: Sequence[Fraction], lr: Mapping[Fraction, Path]
) -> Source:
    """Open the images of a folder or an archive, with LR images for the scales `given`; those of `made` are made.

    Raises:
        InputError: as `open_tree` and `scan_dataset`.
    """
    name = path.resolve().name.removesuffix(".gz").removesuffix(".tar").removesuffix(".zip")
    places = {scale: open_tree(place) for scale, place in lr.items()}
    scan = scan_dataset(open_tree(path), given, places, made_scales=made)
    notes = (*scan.notes, *_misfits(scan.images, given))
    return Source(name, path.resolve().name, scan.images, scan.skipped, scan.ignored, notes=notes)


def lmdb_source(path: Path, given: Sequence[Fraction], lr: Mapping[Fraction, Path]) -> Source:
    """Open the images of an LMDB, with those of other LMDBs as LR images.

    Raises:
        InputError: as `LmdbImages` and `common_keys`, or `data.lr-missing` for a scale without an LMDB.
    """
    for scale in given:
        if scale not in lr:
            raise InputError(
                f"{path}: no LMDB of LR images for x{float(scale):g} is given; add --lr {scale}=PATH",
                code="data.lr-missing",
            )
    images = LmdbImages(path)
    lr_images = {scale: LmdbImages(place) for scale, place in lr.items()}
    for other in lr_images.values():
        common_keys(images, other)
    originals = [
        SourceImage(key, _LmdbFile(images, key), {scale: _LmdbFile(other, key) for scale, other in lr_images.items()})
        for key in images.keys
    ]
    return Source(path.resolve().stem, path.resolve().name, originals)


def store_source(path: Path, given: Sequence[Fraction]) -> Source:
    """Open the images of a store, with its LR planes as LR images.

    Raises:
        InputError: as `Store`, or `store.no-plane` for a scale.
    """
    store = Store(path)

    def file(number: int, plane: str) -> _PixelFile:
        height, width = store.sizes(plane)[number].tolist()
        label = f"{store.path.name}:{store.name(number)} ({plane})"
        return _PixelFile(label, store.crc32(number, plane), 3 * height * width, lambda: store.image(number, plane))

    planes = {scale: store.lq_plane(scale) for scale in given}
    originals = [
        SourceImage(
            store.name(number), file(number, "gt"), {scale: file(number, plane) for scale, plane in planes.items()}
        )
        for number in range(len(store))
    ]
    made_by = {scale: store.manifest["planes"][plane]["degradation"] for scale, plane in planes.items()}
    return Source(str(store.manifest["name"]), path.resolve().name, originals, lq_made_by=made_by)


def sample_source(name: str) -> Source:
    """The photographs of `SAMPLE` of that name."""
    import skimage.data

    data: Any = skimage.data  # scikit-image is only partly typed
    originals = []
    for photo in SAMPLE[name]:
        pixels: RgbImage = data.stereo_motorcycle()[0] if photo == "motorcycle" else getattr(data, photo)()
        label = f"photograph {photo} of scikit-image"
        originals.append(SourceImage(photo, _PixelFile(label, zlib.crc32(pixels.data), pixels.nbytes, pixels.copy)))
    return Source(name, "photographs of scikit-image", originals)


def _misfits(images: Sequence[SourceImage], scales: Sequence[Fraction]) -> list[str]:
    """A line for each scale of which some LR images are not bicubic; a few of the images are looked at."""
    lines = []
    for scale in scales if images else ():
        comparisons = []
        for image in images[:: math.ceil(len(images) / _LOOKED_AT)] if scale > 1 else ():
            # What cannot be read or has the wrong size is said when it is prepared.
            with suppress(InputError):
                hr, lr = _pixels(image.gt), _pixels(image.lq[scale])
                height, width = (int(side * scale) for side in lr.shape[:2])
                if height <= hr.shape[0] and width <= hr.shape[1]:
                    comparisons.append((image.name, compare_with_bicubic(hr[:height, :width], lr)))
        misfit = describe_misfit(comparisons)
        lines += [f"x{float(scale):g}: of {len(comparisons)} LR images looked at, {misfit}"] if misfit else []
    return lines


def _pixels(file: ImageFile) -> RgbImage:
    return rgb_of(decode_image(file.read(), file.label), file.label)


@dataclass(frozen=True)
class _LmdbFile:
    """An `ImageFile` in an LMDB."""

    images: LmdbImages
    key: str

    @property
    def label(self) -> str:
        return f"{self.images.path.name}/{self.key}"

    @property
    def stamp(self) -> str:
        return f"{zlib.crc32(self.read()):08x}"

    @property
    def size(self) -> int:
        return len(self.read())

    def read(self) -> bytes:
        return self.images.read(self.key)


@dataclass(frozen=True)
class _PixelFile:
    """An `ImageFile` of decoded pixels, which reads as a PPM file."""

    label: str
    crc32: int
    size: int
    pixels: Callable[[], RgbImage]

    @property
    def stamp(self) -> str:
        return f"{self.size}-{self.crc32:08x}"

    def read(self) -> bytes:
        file = BytesIO()
        Image.fromarray(self.pixels()).save(file, "PPM")
        return file.getvalue()
