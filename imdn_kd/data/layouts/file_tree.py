"""File trees: the image files of a folder or an archive, alike."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imdn_kd.data.layouts.archives import errors_named, members
from imdn_kd.errors import InputError
from imdn_kd.image.bounded import read_bounded
from imdn_kd.image.io import is_image_name
from imdn_kd.utils.text import one_line


class ImageFile(Protocol):
    """An image file on disk, in an archive or elsewhere; safe to read from several threads."""

    @property
    def label(self) -> str:
        """Its place, shown in messages: `Set5/baby.png`, `Set5.zip:Set5/baby.png`."""
        ...

    @property
    def stamp(self) -> str:
        """Text that changes with the content; known without reading the content."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self) -> bytes:
        """Return the content; InputError, with the label, where it cannot be read."""
        ...


@dataclass(frozen=True)
class DiskFile:
    """An `ImageFile` on disk, whose stamp is size and modification time."""

    path: Path

    @property
    def label(self) -> str:
        """The path."""
        return one_line(str(self.path))

    @property
    def stamp(self) -> str:
        """Size and modification time; InputError where the file is gone."""
        status = self._status()
        return f"{status.st_size}-{status.st_mtime_ns}"

    @property
    def size(self) -> int:
        """Bytes; InputError where the file is gone."""
        return self._status().st_size

    def read(self) -> bytes:
        """Return the content; InputError, with the path, where it cannot be read."""
        with errors_named(self.label), self.path.open("rb") as file:
            return read_bounded(file, self.size, self.label)

    def _status(self) -> os.stat_result:
        with errors_named(self.label):
            return self.path.stat()


@dataclass(frozen=True)
class FileTree:
    """The image files below a folder, or in an archive.

    Attributes:
        label: of the folder or archive, for messages.
        files: by path below the root, with "/"; sorted.
        others: paths of files left out: hidden ones, those without the suffix of an image, and broken links. Files in
            hidden folders and in `__MACOSX` are not counted.
        path: the folder on disk; None in an archive.
    """

    label: str
    files: Mapping[str, ImageFile]
    others: tuple[str, ...] = ()
    path: Path | None = None

    @property
    def ignored(self) -> int:
        """Number of files left out."""
        return len(self.others)

    def folders(self) -> list[str]:
        """Names of the folders right below the root that have images in them or below them."""
        return list(dict.fromkeys(name.partition("/")[0] for name in self.files if "/" in name))

    def folder(self, name: str) -> FileTree | None:
        """Return the tree of a folder, such as `HR` or `LR_bicubic/X4`; None where it has no images."""
        start = f"{name}/"
        files = {path[len(start) :]: file for path, file in self.files.items() if path.startswith(start)}
        if not files:
            return None
        others = tuple(path[len(start) :] for path in self.others if path.startswith(start))
        return FileTree(one_line(f"{self.label}/{name}"), files, others, self.path and self.path / name)


def open_tree(path: Path | str) -> FileTree:
    """List the image files in a folder, a zip or a tar (plain or .gz), those of folders inside included.

    Raises:
        InputError: `data.not-found`, `data.cannot-list`, or as `members`.
    """
    path = Path(path)
    label = one_line(str(path))
    with errors_named(label):
        if path.is_dir():
            return FileTree(label, *_sort_out(_walk(path)), path)
        if not path.exists():
            raise InputError(f"{label}: no such folder or archive; check the name", code="data.not-found")
        return FileTree(label, *_sort_out(_visible(members(path))))


def _sort_out(entries: Iterable[tuple[str, ImageFile | None]]) -> tuple[dict[str, ImageFile], tuple[str, ...]]:
    # Of two members of one name, the later one counts.
    every = dict(sorted(dict(entries).items()))
    files = {name: file for name, file in every.items() if file is not None and is_image_name(name)}
    return files, tuple(name for name in every if name not in files)


def _walk(root: Path) -> Iterator[tuple[str, DiskFile | None]]:
    def refuse(error: OSError) -> None:
        raise InputError(
            one_line(f"{error.filename}: cannot be listed ({error.strerror}); change its permissions"),
            code="data.cannot-list",
        )

    for folder, inside, names in os.walk(root, followlinks=True, onerror=refuse):
        inside[:] = [name for name in inside if not _is_hidden(name) and not _leads_up(Path(folder, name))]
        for path in (Path(folder, name) for name in names):
            yield path.relative_to(root).as_posix(), DiskFile(path) if path.is_file() else None


def _visible(entries: Iterable[tuple[str, ImageFile | None]]) -> Iterator[tuple[str, ImageFile | None]]:
    for name, file in entries:
        if not any(map(_is_hidden, name.split("/")[:-1])):
            yield name, file


def _is_hidden(folder: str) -> bool:
    return folder.startswith(".") or folder == "__MACOSX"


def _leads_up(folder: Path) -> bool:
    """Whether it is a link to a folder above it, which a walk would follow without end."""
    return folder.is_symlink() and folder.resolve() in (folder.parent.resolve(), *folder.parent.resolve().parents)
