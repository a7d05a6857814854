"""Index of LR images by the names of their HR images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import PurePosixPath

from imdn_kd.data.layouts.file_tree import FileTree, ImageFile
from imdn_kd.data.layouts.names import lr_names, scale_text
from imdn_kd.errors import InputError
from imdn_kd.image.io import decode_image
from imdn_kd.utils.text import one_line


class LrIndex:
    """An index of the LR images of a scale, by name.

    The way of naming that fits most HR images comes first; no LR image belongs to two of them.

    Args:
        place: their folder or archive.
        scale: px of an HR image per px of an LR image.
        names: of the HR images, without suffix.
        pattern: name of the LR image of HR image `{}`, less the suffix, with `{scale}`; by default the usual ones.

    Attributes:
        place: as given.
    """

    def __init__(self, place: FileTree, scale: Fraction, names: Iterable[str], pattern: str | None = None) -> None:
        self.place, self._scale, self._pattern = place, scale, pattern
        self._paths = by_name(place.files)
        self._found = self._pair(names)

    def of(self, name: str, gt: ImageFile) -> ImageFile:
        """Return the LR image of an HR image; InputError if it is missing or there are two."""
        found = self._found.get(name)
        if found is None:
            wanted = " or ".join(self._wanted(name)[:2])
            raise InputError(
                one_line(
                    f"{gt.label}: has no LR image for scale {scale_text(self._scale)} in {self.place.label} "
                    f"(it would be called {wanted}); add it"
                ),
                code="data.lr-missing",
            )
        return only_one(self.place, found, self._paths[found])

    def has(self, name: str) -> bool:
        """Whether there is an LR image of an HR image."""
        return name in self._found

    def has_scale(self, name: str, gt: ImageFile) -> bool:
        """Whether the sizes of an HR image and its LR image fit the scale; True where they cannot be read."""
        found = self._found.get(name)
        return not found or fits(gt, self.place.files[self._paths[found][0]], self._scale) is not False

    def _pair(self, names: Iterable[str]) -> dict[str, str]:
        """The name of the LR image of each HR image that has one."""
        wanted = {name: self._wanted(name) for name in names}
        ways = range(max(map(len, wanted.values()), default=0))
        fitting = {
            way: {name: each[way] for name, each in wanted.items() if way < len(each) and each[way] in self._paths}
            for way in ways
        }
        found, taken = dict[str, str](), set[str]()
        for way in sorted(ways, key=lambda way: -len(fitting[way])):
            for name, low in fitting[way].items():
                if name not in found and low not in taken:
                    found[name] = low
                    taken.add(low)
        return found

    def _wanted(self, name: str) -> list[str]:
        if self._pattern is None:
            return lr_names(name, self._scale)
        # Not str.format: file names may have braces of their own.
        return [self._pattern.replace("{scale}", scale_text(self._scale)).replace("{}", name)]


def best_index(
    places: Iterable[FileTree], scale: Fraction, names: Sequence[str], pattern: str | None = None
) -> LrIndex:
    """The index of that place in which the most HR images have an LR image."""
    indexes = [LrIndex(place, scale, names, pattern) for place in places]
    return max(indexes, key=lambda index: sum(map(index.has, names)))


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


def fits(high: ImageFile, low: ImageFile, scale: Fraction) -> bool | None:
    """Whether the sizes of an HR and an LR image fit a scale; None where one of them cannot be read."""
    sizes = _size(high), _size(low)
    if sizes[0] is None or sizes[1] is None:
        return None
    return all(0 <= one - scale * other < scale for one, other in zip(sizes[0], sizes[1], strict=True))


def _size(file: ImageFile) -> tuple[int, int] | None:
    try:
        picture = decode_image(file.read(), file.label)
    except InputError:
        return None
    return picture.height, picture.width
