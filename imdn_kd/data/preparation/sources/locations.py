"""Search for the data sets of the catalogue on disk, as archives or unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from imdn_kd.data.layouts.file_tree import FileTree, open_tree
from imdn_kd.data.layouts.finder import find_layout
from imdn_kd.data.layouts.lr_index import by_name
from imdn_kd.data.preparation.sources.catalogue import Archive, NamedSet, Part
from imdn_kd.errors import InputError

_CONTAINERS = ("", "benchmark", "DIV2K")
"""Folders that contain sets, inside archives and on disk."""


@dataclass(frozen=True)
class Located:
    """Where the images of a set are: HR images, and LR images by scale."""

    hr: FileTree
    lr: Mapping[Fraction, FileTree]


def locate(
    named: NamedSet, places: Sequence[Path], given_scales: Sequence[Fraction] = ()
) -> Located | tuple[Archive, ...]:
    """Find a set on disk: as its archives, or unpacked.

    An archive goes by its name, or is itself a place. Unpacked folders are looked for as they come out of the archives
    (`benchmark/Set5/HR`, `DIV2K_train_HR`), in the place, in its `DIV2K/`, or as the place itself, the others then
    beside it. Existing archives are not checked: reading an image from a zip checks it.

    Args:
        named: a set of the catalogue.
        places: folders or archives, best first; those that do not exist are passed over.
        given_scales: scales of the published LR images that are wanted.

    Returns:
        Where the images are, or the archives that are missing.

    Raises:
        InputError: `data.lr-missing`, nothing is published for a scale; `archive.wrong-content`; as `open_tree`.
    """
    unknown = [scale for scale in given_scales if scale not in named.lr]
    if unknown:
        there = ", ".join(f"x{scale}" for scale in named.lr)
        raise InputError(
            f"{named.title}: has no published LR images for scale {float(unknown[0]):g} (there are {there}); "
            "leave out --degradation given",
            code="data.lr-missing",
        )
    search = _Search(named)
    hr = search.find(named.hr, places)
    lr = {scale: search.find(named.lr[scale], places) or _beside(hr, scale) for scale in given_scales}
    found = {scale: tree for scale, tree in lr.items() if tree is not None}
    missing = [named.lr[scale].archive for scale in lr if scale not in found]
    if hr is None:
        missing.insert(0, named.hr.archive)
    return tuple(dict.fromkeys(missing)) if hr is None or missing else Located(hr, found)


class _Search:
    """A search for the parts of a set; lists every archive once."""

    def __init__(self, named: NamedSet) -> None:
        self._archives: dict[Path, FileTree] = {}
        self._components = {
            name for part in (named.hr, *named.lr.values()) for folder in part.folders for name in folder.split("/")
        }

    def find(self, part: Part, places: Sequence[Path]) -> FileTree | None:
        return next((tree for place in places for tree in self._trees(part, place) if tree is not None), None)

    def _trees(self, part: Part, place: Path) -> Iterator[FileTree | None]:
        if place.is_file():
            yield self._in_archive(part, place)
        for container in _CONTAINERS:
            archive = place / container / part.archive.name
            if archive.is_file():
                tree = self._in_archive(part, archive)
                if tree is None:
                    raise InputError(
                        f"{archive}: has no images in {part.folders[0]}; move it away, it holds something else",
                        code="archive.wrong-content",
                    )
                yield tree
        absolute = place.absolute()
        above = [absolute.parent, absolute.parent.parent] if absolute.name in self._components else []
        for base in (*(place / container for container in _CONTAINERS), *above):
            yield from (_folder(base, folder) for folder in part.folders)

    def _in_archive(self, part: Part, path: Path) -> FileTree | None:
        if path not in self._archives:
            self._archives[path] = open_tree(path)
        tree = self._archives[path]
        names = (f"{container}/{name}".lstrip("/") for container in _CONTAINERS for name in part.folders)
        return next((inside for inside in map(tree.folder, names) if _has_images(inside)), None)


def _beside(hr: FileTree | None, scale: Fraction) -> FileTree | None:
    """LR images that lie by other names than in the archives."""
    if hr is None:
        return None
    layout = find_layout(hr, [scale])
    choice = layout.choose_lr(scale, list(by_name(layout.hr.files)))
    return choice.index.place if choice.index else None


def _folder(base: Path, name: str) -> FileTree | None:
    tree = open_tree(base / name) if (base / name).is_dir() else None
    return tree if _has_images(tree) else None


def _has_images(tree: FileTree | None) -> bool:
    return tree is not None and any("/" not in path for path in tree.files)
