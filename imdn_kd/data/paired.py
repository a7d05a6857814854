"""BasicSR's paired data sets: two folders of images, optionally with a list of names, or two LMDB folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imdn_kd.data.base import exact_scale
from imdn_kd.data.image_lists import MOST_LINES, Entries, Files, Images, backend_of, names_in_folder, names_in_list
from imdn_kd.data.lmdb_io import LmdbImages, common_keys
from imdn_kd.errors import InputError, Problems
from imdn_kd.image.io import find_images
from imdn_kd.image.rgb import RgbImage
from imdn_kd.registry import DATASETS


@DATASETS.register
class PairedImageDataset:
    """`ImagePairs` of HR images (`gt`) and LR images (`lq`) in files, with the options of BasicSR's data set.

    On disk, `find_pairs` finds the LR images. In LMDB both sides must have the same keys, which are sorted; list and
    template are ignored there.

    A `gt` that exceeds `scale` times its `lq` by less than a pixel of `lq` is cropped at the bottom and right. At
    fractional scales so is `lq`, to a multiple of the denominator.

    Args:
        scale: px of `gt` per px of `lq`, 1 or more.
        dataroot_gt: folder of the HR images.
        dataroot_lq: folder of their LR images.
        meta_info_file: file with a name in `dataroot_gt` on each line, optionally followed by a space and its shape;
            default: all images.
        filename_tmpl: name of the `lq` of the HR image `{}`, both without suffix.
        io_backend: `{"type": "disk"}` (default) or `{"type": "lmdb"}`.

    Raises:
        InputError: as `find_pairs`, as `LmdbImages`, or `data.io-backend`.
    """

    def __init__(
        self,
        *,
        scale: float | str | Fraction,
        dataroot_gt: Path | str,
        dataroot_lq: Path | str,
        meta_info_file: Path | str | None = None,
        filename_tmpl: str = "{}",
        io_backend: Mapping[str, Any] | None = None,
    ) -> None:
        self.scale = exact_scale(scale)
        self.planes: Sequence[str] = ("gt", "lq")
        self._sizes: npt.NDArray[np.int64] | None = None
        self._gt: Images
        self._lq: Images
        if backend_of(io_backend) == "lmdb":
            databases = LmdbImages(dataroot_gt), LmdbImages(dataroot_lq)
            keys = common_keys(*databases)
            self._gt, self._lq = (Entries(database, keys) for database in databases)
        else:
            list_file = None if meta_info_file is None else Path(meta_info_file)
            pairs = find_pairs(Path(dataroot_gt), Path(dataroot_lq), list_file, filename_tmpl)
            self._gt, self._lq = (Files(paths) for paths in zip(*pairs, strict=True))

    def __len__(self) -> int:
        return len(self._gt)

    def name(self, index: int) -> str:
        """Return the path of an HR image; of LMDB, the folder and the key."""
        return self._gt.name(index)

    def lq_sizes(self) -> npt.NDArray[np.int64]:
        """Return the (height, width) of every `lq`, px, from headers or meta_info.txt; read once.

        Raises:
            InputError: with a line for each `lq` without a usable header that cannot be decoded, and for each pair
                whose sizes do not fit (`data.lr-size`), as far as the header of `gt` tells.
        """
        if self._sizes is None:
            sizes = np.zeros((len(self), 2), np.int64)
            with Problems(most=MOST_LINES) as problems:
                for index in range(len(self)):
                    with problems.at():
                        sizes[index] = lq = self._lq.size(index)
                        gt = self._gt.cheap_size(index)
                        if gt is not None:
                            self._fit(index, gt, lq)
            self._sizes = sizes // self.scale.denominator * self.scale.denominator
            self._sizes.setflags(write=False)
        return self._sizes

    def read(self, index: int) -> dict[str, RgbImage]:
        """Return `gt`, sH x sW x 3, and `lq`, H x W x 3; RGB.

        Raises:
            InputError: an image that cannot be read, or `data.lr-size`, sizes that do not fit.
        """
        gt, lq = self._gt.read(index), self._lq.read(index)
        times = self._fit(index, gt.shape[:2], lq.shape[:2])
        gt_height, gt_width = (self.scale.numerator * count for count in times)
        lq_height, lq_width = (self.scale.denominator * count for count in times)
        return {"gt": gt[:gt_height, :gt_width], "lq": lq[:lq_height, :lq_width]}

    def _fit(self, index: int, gt: Sequence[int], lq: Sequence[int]) -> list[int]:
        """How often numerator and denominator of the scale go into the (height, width) of a pair.

        Raises:
            InputError: `data.lr-size`.
        """
        times = [self._fitting(*sides) for sides in zip(gt, lq, strict=True)]
        if 0 in times:
            names, sizes = (self._gt.name(index), self._lq.name(index)), [f"{side[1]}x{side[0]}" for side in (gt, lq)]
            message = (
                f"{names[1]}: is {sizes[1]} px, larger than its HR image {names[0]} with {sizes[0]}; exchange the two, "
                "or dataroot_gt and dataroot_lq"
                if lq[0] > gt[0] and lq[1] > gt[1]
                else f"{names[1]}: is {sizes[1]} px, which x{float(self.scale):g} does not make the {sizes[0]} of "
                f"{names[0]}; make it again, or correct the scale"
            )
            raise InputError(message, code="data.lr-size")
        return times

    def _fitting(self, gt: int, lq: int) -> int:
        """How often numerator and denominator of the scale go into the sides of `gt` and `lq`; 0 if they do not fit.

        A fractional side may be rounded up or down.
        """
        excess = gt - self.scale * lq
        return lq // self.scale.denominator if -1 < excess < self.scale else 0


FilePairs = list[tuple[Path, Path]]
"""(HR image, LR image) of every pair."""


def find_pairs(gt_folder: Path, lq_folder: Path, list_file: Path | None, template: str) -> FilePairs:
    """Find the LR image of every HR image by BasicSR's rules.

    Args:
        gt_folder: HR images.
        lq_folder: LR images; may hold more. That of an HR image in a sub folder is in `lq_folder` itself,
            where BasicSR looks for it, or else in the sub folder of the same name.
        list_file: the HR images to use, in this order: on each line a name in `gt_folder`, optionally followed by a
            space or tab and more; back-slashes may separate folders. Default: all in `gt_folder` itself, by name.
        template: name of the LR image of the HR image `{}`, both without suffix. The suffix is that of the HR image, or
            any other where there is no such file.

    Raises:
        InputError: `data.not-a-folder`, `data.no-images`, `data.same-name` for two HR images, `data.lr-missing`,
            `data.lr-shared`, `data.image-list`, `data.filename-template`, or `data.swapped`.
    """
    names = names_in_folder(gt_folder) if list_file is None else names_in_list(gt_folder, list_file)
    _check_template(template)
    finder = _Finder(lq_folder, template)
    found = {name: finder.lr_image(name) for name in names}
    lonely = [name for name in names if found[name] is None]
    if lonely:
        if _are_swapped(gt_folder, lq_folder, template):
            raise InputError(
                f"{gt_folder}: holds the LR images of {lq_folder}; exchange dataroot_gt and dataroot_lq",
                code="data.swapped",
            )
        who = f"{lonely[0]}" if len(lonely) == 1 else f"{len(lonely)} of {len(names)} images, {lonely[0]} among them"
        advice = "add it" if len(lonely) < len(names) else "check `dataroot_lq` and `filename_tmpl`"
        wanted = template.format(lonely[0].stem) + lonely[0].suffix
        raise InputError(
            f"{lq_folder}: has no LR image of {who} (it would be called {wanted}); {advice}", code="data.lr-missing"
        )
    pairs = [(gt_folder / name, lr_image) for name, lr_image in found.items() if lr_image is not None]
    lr_images: dict[Path, Path] = {}
    for gt, lq in pairs:
        if lr_images.setdefault(lq, gt) != gt:
            raise InputError(
                f"{lq}: belongs to both {lr_images[lq]} and {gt}; give each of them its own",
                code="data.lr-shared",
            )
    return pairs


def _are_swapped(gt_folder: Path, lq_folder: Path, template: str) -> bool:
    """Whether images of the LR folder have their LR images in the HR folder."""
    finder = _Finder(gt_folder, template)
    return template != "{}" and any(finder.lr_image(Path(path.name)) for path in find_images(lq_folder))


class _Finder:
    """Finds LR images by name; lists folders only if it has to."""

    def __init__(self, folder: Path, template: str) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: is not a folder; check the name", code="data.not-a-folder")
        self._folder = folder
        self._template = template
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def lr_image(self, original: Path) -> Path | None:
        """Find the LR image of an HR image, whose name is given as in its own folder."""
        wanted = self._template.format(original.stem)
        # The same place twice where there are no sub folders.
        places = [folder / f"{wanted}{original.suffix}" for folder in (self._folder, self._folder / original.parent)]
        for place in places:
            if place.is_file():
                return place
        for place in places:
            alike = self._images(place.parent).get(Path(wanted).name, [])
            if len(alike) > 1:
                raise InputError(
                    f"{place.parent}: has {len(alike)} images called {wanted}; keep one of them", code="data.same-name"
                )
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
        raise InputError(
            f"filename_tmpl: {template!r} has no place for the name of the image; write, say, '{{}}x4'",
            code="data.filename-template",
        )
