"""HR images of a data set in a folder on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from imdn_kd.data.layouts.file_tree import DiskFile, FileTree, ImageFile, open_tree
from imdn_kd.data.layouts.finder import DatasetLayout, find_layout
from imdn_kd.errors import InputError


def find_originals(folder: Path, scales: Sequence[Fraction] = ()) -> tuple[DatasetLayout, list[Path]]:
    """Find the HR images in a folder, those of folders inside left out, and the layout around them.

    Args:
        folder: see `find_layout`.
        scales: see `find_layout`.

    Raises:
        InputError: `image.not-a-folder`, `data.no-images`, `data.same-name`, or as `find_layout`.
    """
    layout = find_layout(open_folder(folder), scales)
    originals = [path_of(file) for path, file in layout.hr.files.items() if "/" not in path]
    if not originals:
        raise InputError(
            f"{layout.hr.label}: has no images; name the folder of the HR images, or the one around it",
            code="data.no-images",
        )
    name, count = Counter(path.stem for path in originals).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{layout.hr.label}: has {count} images called {name}; keep one of them", code="data.same-name"
        )
    return layout, originals


def open_folder(folder: Path) -> FileTree:
    """As `open_tree`, but archives are refused (`image.not-a-folder`)."""
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; check the name", code="image.not-a-folder")
    return open_tree(folder)


def path_of(file: ImageFile) -> Path:
    """Return the path of a file that is on disk."""
    if not isinstance(file, DiskFile):
        raise TypeError(f"{file.label} is not a file on disk")
    return file.path
