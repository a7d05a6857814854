"""Finder of the HR images of a data set, and of the LR images that belong to them, in all published layouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import takewhile
from pathlib import Path

from imdn_kd.data.layouts.file_tree import FileTree, open_tree
from imdn_kd.data.layouts.lr_index import LrIndex, by_name, fits
from imdn_kd.data.layouts.names import FolderName, hr_base, lr_base, read_folder_name, scale_text
from imdn_kd.errors import InputError
from imdn_kd.utils.text import one_line

_NAMED = 3  # files named in a message


@dataclass(frozen=True)
class LrFolder:
    """A folder of LR images, or the LR images among the HR images.

    Attributes:
        tree: the images.
        label: shown in tables and messages, such as `LR_bicubic/X4`.
        scale: as far as names tell.
        kind: degradation, as far as names tell.
        certain: whether its place says that these are LR images of the HR images, so that a missing one is an error.
    """

    tree: FileTree
    label: str
    scale: Fraction | None
    kind: str
    certain: bool


@dataclass(frozen=True)
class LrChoice:
    """The LR images that were chosen for a scale.

    Attributes:
        index: the LR images; None if there are none.
        label: shown in tables, such as `LR_bicubic/X4`.
        passed_over: what else looks like LR images for the scale, each with the reason.
    """

    index: LrIndex | None
    label: str
    passed_over: tuple[str, ...]


@dataclass(frozen=True)
class DatasetLayout:
    """The layout of a data set.

    Attributes:
        hr: folder or archive of the HR images, without all that are not HR images.
        lr: LR images, for any scale.
        title: name of the data set: `Set5` of `HR/Set5/x4`, `DIV2K_train` of `DIV2K_train_HR`; else that of the folder.
        passed_over: what lies among the HR images and is neither HR nor LR image, with the reason.
    """

    hr: FileTree
    lr: tuple[LrFolder, ...]
    title: str
    passed_over: tuple[str, ...] = ()

    def choose_lr(self, scale: Fraction, names: Sequence[str]) -> LrChoice:
        """Choose the LR images for a scale: bicubic ones, as far as names tell, that the most HR images have.

        Their scale is read from the names of folders and files, or else from the sizes of the first pair.

        Args:
            scale: px of an HR image per px of an LR image.
            names: of the HR images, without suffix.
        """
        passed, fitting = [], []
        paths = by_name(self.hr.files)
        for folder in self.lr:
            if folder.scale not in (None, scale):
                continue
            index = LrIndex(folder.tree, scale, names)
            found = [name for name in names if index.has(name)]
            fits = bool(found) and index.has_scale(found[0], self.hr.files[paths[found[0]][0]])
            if not is_bicubic(folder.kind):
                passed += [f"{folder.label} (not bicubic, by its name)"] if found else []
            elif folder.certain and folder.scale == scale:
                fitting.append((len(found), folder, index))
            elif found and not fits:
                passed.append(f"{folder.label} (not for x{scale_text(scale)}, by its sizes)")
            elif found and not folder.certain and len(found) < len(names):
                passed.append(f"{folder.label} (has LR images of {len(found)} of {len(names)} images)")
            elif found:
                fitting.append((len(found), folder, index))
        if not fitting:
            return LrChoice(None, "", tuple(passed))
        _, best, index = max(fitting, key=lambda each: (each[0], each[1].certain))
        passed += [f"{folder.label} ({best.label} is used)" for _, folder, _ in fitting if folder is not best]
        return LrChoice(index, best.label, tuple(passed))


def is_bicubic(kind: str) -> bool:
    """Whether LR images are bicubic, as far as names tell."""
    return kind.lower() in ("", "bi", "bic", "bicubic")


def find_layout(tree: FileTree, scales: Sequence[Fraction] = ()) -> DatasetLayout:
    """Find the HR images in a folder or an archive, and the LR images in it and beside it.

    HR images are in a folder such as `HR`, `GTmod12` or `DIV2K_train_HR`, or else all images are, less those in
    folders of LR images; see `imdn_kd.data.layouts.names`. The folder may also be such a folder of HR images itself,
    or `HR/Set5`. In one folder, `a_HR` and `a_LR` are a pair, and so are `a` and `ax4`.

    Args:
        tree: the folder or archive.
        scales: of the LR images that are wanted, by which one of several folders of HR images is chosen.

    Raises:
        InputError: `data.several-sets`.
    """
    inside = _path_to_hr(tree, scales)
    hr = (tree.folder("/".join(inside)) or tree) if inside else tree
    grounds = _grounds(tree)
    path = (*grounds[0][0], *inside)
    roles = [read_folder_name(name) for name in path]
    at = next((at for at, name in enumerate(roles) if name.role == "hr"), None)
    title = roles[at].title if at is not None else ""
    plain = [name for name, read in zip(path, roles, strict=True) if not read.role]
    titles = {name.lower() for name in (*plain, *filter(None, [title]))}
    home = _Home(path, len(path) if at is None else at, titles, title.lower())
    folders = [folder for prefix, ground in grounds for folder in home.lr_folders(prefix, ground)]

    files = {place: file for place, file in hr.files.items() if not _in_lr_folder(place)}
    for folder in folders:
        below = f"{folder.label}/"
        # A folder `x4` among HR images has LR images where the names of these say so.
        if not folder.certain and not inside and folder.scale is not None:
            names = [name for name in by_name(files) if "/" not in name]
            index = LrIndex(folder.tree, folder.scale, names)
            if any(map(index.has, names)):
                files = {place: file for place, file in files.items() if not place.startswith(below)}
    originals, low, others = _split(dataclasses.replace(hr, files=files))
    if low.files:
        folders.append(LrFolder(low, "beside the HR images", None, "", certain=True))
    passed = (f"{_some(others)} (neither HR nor LR image, by the name)",) if others else ()
    around = _absolute(tree.path).parents[len(grounds[0][0]) - 1].name if tree.path else ""
    return DatasetLayout(originals, tuple(folders), title or next(reversed(plain), around), passed)


def lr_places(lr: FileTree, scale: Fraction) -> list[FileTree]:
    """Folders in which the LR images of a scale may be, inside a folder or archive of LR images."""
    places, only = [lr], lr
    while (name := _only_folder(only)) is not None:
        only = only.folder(name) or only
        places.append(only)
    named = [path for path in _folders(lr) if read_folder_name(path.rpartition("/")[2]).scale == scale]
    return places + [place for place in map(lr.folder, named) if place]


@dataclass(frozen=True)
class _Home:
    """Where HR images are, and by what folders of LR images are told to be theirs.

    Attributes:
        path: names of the folders that lead to the HR images.
        depth: how many of these must lead to a folder of LR images, too, that need not name the data set.
        titles: names of the data set, in small letters.
        title: that of the folder of HR images, or empty.
    """

    path: tuple[str, ...]
    depth: int
    titles: set[str]
    title: str

    def lr_folders(self, prefix: tuple[str, ...], ground: FileTree) -> Iterator[LrFolder]:
        """Find folders of LR images in a folder, to which `prefix` leads."""
        seen: dict[tuple[str, ...], LrFolder] = {}
        for below in ("", *_folders(ground)):
            path = (*prefix, *filter(None, below.split("/")))
            pairs = zip(path, self.path, strict=False)
            shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            read = self._read(path[shared:])
            if read is None:
                continue
            length, name, own = read
            place = path[: shared + length]
            certain = name.role == "lr" and (own or (shared >= self.depth and not (self.title and name.title)))
            foreign = name.title and not own and (shared < self.depth or self.title)
            if place in seen or foreign or len(place) < len(prefix):
                continue
            tree = ground.folder("/".join(place[len(prefix) :])) if len(place) > len(prefix) else ground
            if tree is not None:
                label = one_line("/".join(place[shared:]))
                seen[place] = LrFolder(tree, label, name.scale, name.kind, certain)
        yield from seen.values()

    def _read(self, path: tuple[str, ...]) -> tuple[int, FolderName, bool] | None:
        """What the first names of a path say together, how many they are, and whether they name the data set."""
        whole, own, length = FolderName(), False, 0
        for name in path:
            read = read_folder_name(name)
            if read.role in ("lr", "scale") or (read.role == "kind" and whole.role == "lr"):
                whole = FolderName(
                    "lr" if "lr" in (read.role, whole.role) else "scale",
                    read.title or whole.title,
                    read.scale or whole.scale,
                    read.kind or whole.kind,
                )
                own |= read.title.lower() in self.titles
            elif name.lower() in self.titles:
                own = True
            else:
                break
            length += 1
        return (length, whole, own) if whole.role else None


def _grounds(tree: FileTree) -> list[tuple[tuple[str, ...], FileTree]]:
    """Folders to look for LR images in, each with the path to it from a common folder; that of the tree comes first."""
    if tree.path is None:
        return [((), tree)]
    here = _absolute(tree.path)
    near = [here, *here.parents][:3]
    found = next((at for at, path in enumerate(near) if read_folder_name(path.name).role == "hr"), None)
    roles = ("lr",) if found is None else ("lr", "scale")
    at = found or 0
    base, given = near[at].parent, tree.path
    for _ in range(at + 1):
        if given.name in ("", ".."):
            given = base
            break
        given = given.parent
    beside = [name for name in _folders_in(base) if read_folder_name(name).role in roles and base / name != near[at]]
    return [(here.relative_to(base).parts, tree), *(((name,), open_tree(given / name)) for name in beside)]


def _absolute(path: Path) -> Path:
    return path.resolve() if ".." in path.parts else path.absolute()


def _folders_in(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_dir())
    except OSError:  # what lies around a data set may be out of reach
        return []


def _path_to_hr(tree: FileTree, scales: Sequence[Fraction]) -> list[str]:
    """Names of the folders that lead to the HR images; none where these are in `tree` itself."""
    step = _hr_folder(tree, scales)
    inside = tree.folder(step) if step else None
    if inside:
        _refuse_sets(inside)
    step = step or _scale_folder(tree, scales)
    inside = tree.folder(step) if step else None
    if step and inside:
        return [step, *_path_to_hr(inside, scales)]
    only = _only_folder(tree)
    inside = tree.folder(only) if only else None
    if only and inside:
        deeper = _path_to_hr(inside, scales)
        # A folder around an archive is no part of the names; on disk, names should stay the same when there is
        # another folder some day.
        return [only, *deeper] if deeper or tree.path is None else []
    return []


def _hr_folder(tree: FileTree, scales: Sequence[Fraction]) -> str | None:
    named = {name: read for name in tree.folders() if (read := read_folder_name(name)).role == "hr"}
    if _has_images(tree):  # `original` is a word for other things as well
        named = {
            name: read for name, read in named.items() if name.lower() in ("hr", "gt") or read.title or read.multiple
        }
    titles = {read.title.lower() for read in named.values()}
    if len(titles) > 1 and "" not in titles:
        raise _several(tree, named)
    named = {name: read for name, read in named.items() if len(titles) == 1 or not read.title}

    def order(name: str) -> tuple[object, ...]:
        read = named[name]
        whole = not read.multiple or not any(read.multiple % scale.numerator for scale in scales)
        other = bool(scales) and read.scale is not None and read.scale not in scales
        return read.patches, other, not whole, read.multiple != 12, bool(read.multiple), "hr" not in name.lower(), name

    return min(named, key=order, default=None)


def _scale_folder(tree: FileTree, scales: Sequence[Fraction]) -> str | None:
    """The folder of a scale, such as `x4`, where all images are in such folders."""
    names = {} if _has_images(tree) else {name: read_folder_name(name) for name in tree.folders()}
    if not names or any(read.role != "scale" for read in names.values()):
        return None
    fitting = [name for name, read in names.items() if read.scale in scales]
    if len(names) > 1 and len(fitting) != 1:
        raise _several(tree, names)
    return fitting[0] if fitting else next(iter(names))


def _refuse_sets(hr: FileTree) -> None:
    """Refuse a folder of HR images with several sets in it, each in folders such as `x4`."""
    sets = [inside for name in hr.folders() if (inside := hr.folder(name))]
    scaled = [not _has_images(one) and all(read_folder_name(x).role == "scale" for x in one.folders()) for one in sets]
    if len(sets) > 1 and not _has_images(hr) and all(scaled):
        raise _several(hr, hr.folders())


def _several(tree: FileTree, names: Iterable[str]) -> InputError:
    return InputError(
        one_line(f"{tree.label}: has several sets of HR images ({', '.join(names)}); name one of them"),
        code="data.several-sets",
    )


def _split(tree: FileTree) -> tuple[FileTree, FileTree, list[str]]:
    """Tell HR images, LR images and others that lie in one folder: `a_HR`, `a_LR`, `a_bicubic`; `a`, `ax4`."""
    stems = by_name(tree.files)
    marked = {base: stem for stem in stems if (base := hr_base(stem)) is not None}
    low, paired = set(), set()
    for stem in stems:
        read = lr_base(stem) if hr_base(stem) is None else None
        partner = read and (marked.get(read.base) or (read.base if read.base in stems else None))
        if not read or not partner:
            continue
        high, small = (tree.files[stems[each][0]] for each in (partner, stem))
        if read.says_lr or (read.scale and fits(high, small, read.scale)):
            low.add(stem)
            paired.add(read.base)
    others = {
        stem
        for stem in stems
        if stem not in low
        and hr_base(stem) is None
        and any(stem.startswith(f"{base}_") for base in paired & marked.keys())
    }

    def only(keep: Iterable[str]) -> FileTree:
        return dataclasses.replace(tree, files={path: tree.files[path] for stem in keep for path in stems[stem]})

    return only(stem for stem in stems if stem not in low | others), only(sorted(low)), sorted(others)


def _in_lr_folder(path: str) -> bool:
    return any(read_folder_name(name).role == "lr" for name in path.split("/")[:-1])


def _only_folder(tree: FileTree) -> str | None:
    folders = tree.folders()
    return folders[0] if len(folders) == 1 and not _has_images(tree) else None


def _has_images(tree: FileTree) -> bool:
    return any("/" not in path for path in tree.files)


def _folders(tree: FileTree) -> list[str]:
    """Paths of all folders below the root that have images in them or below them."""
    found: dict[str, None] = {}
    for path in tree.files:
        parts = path.split("/")[:-1]
        found.update(dict.fromkeys("/".join(parts[: end + 1]) for end in range(len(parts))))
    return sorted(found)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
