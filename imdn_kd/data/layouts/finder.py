"""Folder layouts of data sets: where the HR images are, and the LR image of each."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path, PurePosixPath

from imdn_kd.data.layouts.file_tree import FileTree, ImageFile, open_tree
from imdn_kd.data.layouts.names import HR_FOLDERS, LR_FOLDERS, LR_NAMES
from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line


@dataclass(frozen=True)
class SourceImage:
    """An HR image of a data set, and its LR images.

    Attributes:
        name: path below the root of the data set, with "/" and without the suffix.
        gt: the HR image.
        lq: LR images given as files, by scale.
    """

    name: str
    gt: ImageFile
    lq: Mapping[Fraction, ImageFile] = field(default_factory=dict)

    def files(self) -> list[ImageFile]:
        """All files, the HR image first."""
        return [self.gt, *self.lq.values()]


@dataclass(frozen=True)
class SkippedImage:
    """An HR image that cannot be used; `reason` is one line, `label` that of the file."""

    name: str
    label: str
    reason: str


@dataclass(frozen=True)
class ScanResult:
    """The images found in a data set.

    Attributes:
        images: by name, sorted.
        skipped: what cannot be used, and why.
        ignored: number of files left out that are no images; see `FileTree`.
    """

    images: tuple[SourceImage, ...]
    skipped: tuple[SkippedImage, ...]
    ignored: int


def scan_dataset(
    tree: FileTree, given_scales: Sequence[Fraction] = (), lr: Mapping[Fraction, FileTree] | None = None
) -> ScanResult:
    """Find the HR images in a folder or archive and, for scales whose LR images are given as files, these.

    HR images are in `HR/`, BasicSR's `GTmod12/`, or a folder such as `DIV2K_train_HR/`, at the root or in the only
    folder there; otherwise all images are, at any depth, less those in folders of LR images. LR images are in
    `LRbicx4/`, `LR_bicubic/X4/`, `DIV2K_train_LR_bicubic/X4/` or `DIV2K_train_LR_x8/`, in the same folder or archive,
    or beside it if `tree` is itself a folder `HR` or `DIV2K_train_HR`. They are called `{}x4` or `{}`.

    Args:
        tree: the folder or archive.
        given_scales: scales that LR images are wanted for.
        lr: where these are instead, by scale: in the folder or archive itself, in `X4/` or in the only folder there.

    Raises:
        InputError: `data.no-images`, `data.several-sets`, or `data.lr-missing` for a scale without a folder of LR
            images. What is wrong with single images is in `ScanResult.skipped`.
    """
    layout = find_layout(tree)
    files = {path: file for path, file in layout.hr.files.items() if not is_lr(path)}
    if not files:
        raise InputError(
            f"{tree.label}: has no images; name a folder or an archive of HR images", code="data.no-images"
        )
    named = by_name(files)
    lr_images = {}
    for scale in given_scales:
        places = places_in(lr[scale], scale) if lr and scale in lr else layout.lr_places(scale)
        lr_images[scale] = max((LrIndex(place, scale) for place in places), key=lambda each: each.count(named))
    originals, skips = [], []
    for name, paths in named.items():
        try:
            gt = only_one(layout.hr, name, paths)
            originals.append(SourceImage(name, gt, {scale: each.of(name, gt) for scale, each in lr_images.items()}))
        except InputError as error:
            skips += [SkippedImage(name, files[path].label, str(error)) for path in paths]
    return ScanResult(tuple(originals), tuple(skips), tree.ignored)


_DIV2K_HR = "_HR"
"""How the name of a folder of HR images ends in DIV2K; the folders of LR images beside it begin in the same way."""

_DIV2K_LR = ("_LR_bicubic/X{scale}", "_LR_x{scale}")

_LR_LIKE = re.compile(r"(.+_)?LR(bicx[\d.]+|_.+)?")
"""Folders that hold no HR images: `LRbicx4`, `LR_bicubic`, `DIV2K_train_LR_unknown`."""


@dataclass(frozen=True)
class DatasetLayout:
    """The layout of a data set: its HR images, and what lies beside them.

    Attributes:
        hr: folder or archive of the HR images.
        beside: returns a folder beside `hr` by its name, or None.
        title: `DIV2K_train` where `hr` is called `DIV2K_train_HR`.
    """

    hr: FileTree
    beside: Callable[[str], FileTree | None]
    title: str = ""

    def lr_places(self, scale: Fraction) -> list[FileTree]:
        """Return the folders of LR images for a scale, at least one; InputError if there is none."""
        patterns = [*LR_FOLDERS, *(self.title + end for end in _DIV2K_LR if self.title)]
        names = [pattern.format(scale=_text(scale)) for pattern in patterns]
        places = [place for place in map(self.beside, names) if place is not None]
        if not places:
            raise InputError(
                f"{self.hr.label}: has no LR images for scale {_text(scale)} beside it (no "
                f"{' or '.join(names)}); give --lr, or leave out --degradation given",
                code="data.lr-missing",
            )
        return places


def find_layout(tree: FileTree) -> DatasetLayout:
    """Find the folder of the HR images: `HR`, `GTmod12`, `DIV2K_train_HR`; the tree itself without any of these.

    Raises:
        InputError: there are several.
    """
    inside: FileTree | None = tree
    while inside is not None:
        hr = next(filter(None, map(inside.folder, HR_FOLDERS)), None)
        if hr is not None:
            return DatasetLayout(hr, inside.folder)
        named = [name for name in inside.folders() if name.endswith(_DIV2K_HR)]
        if len(named) > 1:
            raise InputError(
                one_line(f"{inside.label}: has several data sets ({', '.join(named)}); name one of them"),
                code="data.several-sets",
            )
        if named:
            return DatasetLayout(inside.folder(named[0]) or inside, inside.folder, named[0].removesuffix(_DIV2K_HR))
        last, inside = inside, _only_folder(inside)
    if tree.path is None:
        return DatasetLayout(last, last.folder)
    # Not the innermost folder: names should stay the same when there is another folder some day.
    here = tree.path.absolute()
    if here.name.endswith(_DIV2K_HR) or here.name in HR_FOLDERS:
        title = here.name.removesuffix(_DIV2K_HR) if "_" in here.name else ""
        return DatasetLayout(tree, _folders_of(here.parent), title)
    return DatasetLayout(tree, tree.folder)


def _folders_of(parent: Path) -> Callable[[str], FileTree | None]:
    return lambda name: open_tree(parent / name) if (parent / name).is_dir() else None


def _only_folder(tree: FileTree) -> FileTree | None:
    folders = tree.folders()
    return tree.folder(folders[0]) if len(folders) == 1 and all("/" in path for path in tree.files) else None


def places_in(lr: FileTree, scale: Fraction) -> list[FileTree]:
    """Folders in which the LR images of a scale may be, inside a folder or archive of LR images."""
    places, inside = [lr], lr.folder(f"X{_text(scale)}")
    deeper = _only_folder(lr)
    return places + ([inside] if inside else []) + (places_in(deeper, scale) if deeper else [])


def is_lr(path: str) -> bool:
    """Whether the path of an image leads through a folder of LR images."""
    return any(map(_LR_LIKE.fullmatch, path.split("/")[:-1]))


class LrIndex:
    """An index of the LR images of a scale, by name.

    Args:
        place: their folder or archive.
        scale: px of an HR image per px of an LR image.
    """

    def __init__(self, place: FileTree, scale: Fraction) -> None:
        self._place, self._scale = place, scale
        self._paths = by_name(place.files)

    def of(self, name: str, gt: ImageFile) -> ImageFile:
        """Return the LR image of an HR image; InputError if it is missing or there are two."""
        wanted = self._wanted(name)
        found = next((each for each in wanted if each in self._paths), None)
        if found is None:
            place = f"{self._place.label} (it would be called {' or '.join(wanted)})"
            raise InputError(
                one_line(f"{gt.label}: has no LR image for scale {_text(self._scale)} in {place}; add it"),
                code="data.lr-missing",
            )
        return only_one(self._place, found, self._paths[found])

    def count(self, names: Iterable[str]) -> int:
        """Return the number of HR images that have an LR image."""
        return sum(any(each in self._paths for each in self._wanted(name)) for name in names)

    def _wanted(self, name: str) -> list[str]:
        # Not str.format: file names may have braces of their own.
        return [pattern.replace("{scale}", _text(self._scale)).replace("{}", name) for pattern in LR_NAMES]


def by_name(paths: Iterable[str]) -> Mapping[str, list[str]]:
    """Group paths by their names without suffix."""
    named: dict[str, list[str]] = {}
    for path in paths:
        named.setdefault(str(PurePosixPath(path).with_suffix("")), []).append(path)
    return dict(sorted(named.items()))


def only_one(tree: FileTree, name: str, paths: Sequence[str]) -> ImageFile:
    """Return the file of the only path; InputError if there are several of one name."""
    if len(paths) > 1:
        count = "two" if len(paths) == 2 else len(paths)
        raise InputError(
            one_line(f"{tree.label}: has {count} images called {name}: {', '.join(paths)}; keep one"),
            code="data.same-name",
        )
    return tree.files[paths[0]]


def _text(scale: Fraction) -> str:
    return f"{float(scale):g}"
