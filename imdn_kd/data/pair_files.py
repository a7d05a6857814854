"""Which low-quality image file (lq) belongs to which original (gt), by BasicSR's rules."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from imdn_kd.errors import InputError
from imdn_kd.image.io import find_images

FilePairs = list[tuple[Path, Path]]
"""Originals, each with its partner."""


def find_pairs(gt_folder: Path, lq_folder: Path, list_file: Path | None, template: str) -> FilePairs:
    """Return originals, each with its partner.

    Args:
        gt_folder: originals.
        lq_folder: their partners; may hold more images. That of an original in a sub folder is in `lq_folder` itself,
            where BasicSR looks for it, or else in the sub folder of the same name.
        list_file: lists the originals to take, in this order: on each line the name within `gt_folder`, and perhaps a
            space and more. None for all in `gt_folder` itself, by name.
        template: name of the partner of the original `{}`, both without suffix. The suffix is that of the original, or
            any other where there is no such file.

    Raises:
        InputError: no such folder, no images, two originals of one name, one that is not there or without a partner, a
            list that cannot be read, or a template that cannot be used.
    """
    names = _names_in_folder(gt_folder) if list_file is None else _names_in_list(gt_folder, list_file)
    _check_template(template)
    finder = _Finder(lq_folder, template)
    found = {name: finder.partner(name) for name in names}
    lonely = [name for name in names if found[name] is None]
    if lonely:
        who = f"{lonely[0]}" if len(lonely) == 1 else f"{len(lonely)} of {len(names)} images, {lonely[0]} among them"
        advice = "add it" if len(lonely) < len(names) else "check `dataroot_lq` and `filename_tmpl`"
        wanted = template.format(lonely[0].stem) + lonely[0].suffix
        raise InputError(f"{lq_folder}: has no partner of {who} (it would be called {wanted}); {advice}")
    pairs = [(gt_folder / name, partner) for name, partner in found.items() if partner is not None]
    partners: dict[Path, Path] = {}
    for gt, lq in pairs:
        if partners.setdefault(lq, gt) != gt:
            raise InputError(f"{lq}: is the partner of both {partners[lq]} and {gt}; give each of them its own")
    return pairs


def _names_in_folder(folder: Path) -> list[Path]:
    originals = find_images(folder)
    if not originals:
        advice = "set `io_backend` to `type: lmdb`" if folder.suffix == ".lmdb" else "check the name"
        raise InputError(f"{folder}: has no images; {advice}")
    stem, count = Counter(path.stem for path in originals).most_common(1)[0]
    if count > 1:
        raise InputError(f"{folder}: has {count} images called {stem}; keep one of them")
    return [Path(path.name) for path in originals]


def _names_in_list(folder: Path, list_file: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; check the name")
    names: dict[Path, None] = {}
    for number, line in enumerate(_lines(list_file), 1):
        if not line.strip():
            continue
        name = Path(line.strip().split(" ")[0])
        if name in names:
            raise InputError(f"{list_file}, line {number}: lists {name} again; remove one of the lines")
        if not (folder / name).is_file():
            raise InputError(f"{list_file}, line {number}: lists {name}, which is not in {folder}; correct the list")
        names[name] = None
    if not names:
        raise InputError(f"{list_file}: lists no images; write the name of one on each line")
    return list(names)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot be read ({reason}); give a list of images as `meta_info_file`") from error


class _Finder:
    """Finds partners by name; lists folders only if it has to."""

    def __init__(self, folder: Path, template: str) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; check the name")
        self._folder = folder
        self._template = template
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def partner(self, original: Path) -> Path | None:
        """Find the partner of an original, whose name is given as in its own folder."""
        wanted = self._template.format(original.stem)
        # The same place twice where there are no sub folders.
        places = [folder / f"{wanted}{original.suffix}" for folder in (self._folder, self._folder / original.parent)]
        for place in places:
            if place.is_file():
                return place
        for place in places:
            alike = self._images(place.parent).get(Path(wanted).name, [])
            if len(alike) > 1:
                raise InputError(f"{place.parent}: has {len(alike)} images called {wanted}; keep one of them")
            if alike:
                return alike[0]
        return None

    def _images(self, folder: Path) -> dict[str, list[Path]]:
        if folder not in self._listed:
            by_stem: defaultdict[str, list[Path]] = defaultdict(list)
            for path in find_images(folder) if folder.is_dir() else ():
                by_stem[path.stem].append(path)
            self._listed[folder] = dict(by_stem)
        return self._listed[folder]


def _check_template(template: str) -> None:
    try:
        fits = template.format("a") != template.format("b")
    except (IndexError, KeyError, ValueError, AttributeError):
        fits = False
    if not fits:
        raise InputError(f"filename_tmpl: {template!r} has no place for the name of the image; write, say, '{{}}x4'")
