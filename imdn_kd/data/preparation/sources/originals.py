"""The original images of a data set, and the low-quality images that were published with them, in the usual layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from imdn_kd.data.preparation.sources.file_tree import DiskFile, ImageFile, Tree, open_tree
from imdn_kd.data.preparation.sources.layouts import Partners, by_name, find_home, is_lr, only_one, places_in
from imdn_kd.errors import InputError

__all__ = ["DiskFile", "Finds", "ImageFile", "Original", "Skip", "Tree", "find_originals", "open_tree"]


@dataclass(frozen=True)
class Original:
    """An original and its low-quality images.

    Attributes:
        name: path below the root of the data set, with "/" and without the suffix.
        gt: the original.
        lq: low-quality images that were given as files, by their factor.
    """

    name: str
    gt: ImageFile
    lq: Mapping[Fraction, ImageFile] = field(default_factory=dict)

    def files(self) -> list[ImageFile]:
        """All files, the original first."""
        return [self.gt, *self.lq.values()]


@dataclass(frozen=True)
class Skip:
    """An original that cannot be used; `reason` is a line of its own, `label` that of the file."""

    name: str
    label: str
    reason: str


@dataclass(frozen=True)
class Finds:
    """What there is in a data set.

    Attributes:
        originals: by name, sorted.
        skips: what cannot be used, and why.
        ignored: number of files left out that are no images; see `Tree`.
    """

    originals: tuple[Original, ...]
    skips: tuple[Skip, ...]
    ignored: int


def find_originals(
    tree: Tree, given_scales: Sequence[Fraction] = (), lr: Mapping[Fraction, Tree] | None = None
) -> Finds:
    """Find the originals in a folder or archive and, for factors that are given as files, their low-quality partners.

    Originals are in `HR/`, BasicSR's `GTmod12/`, or a folder such as `DIV2K_train_HR/`, at the root or in the only
    folder there; otherwise all images are, at any depth, less those in folders of LR images. Partners are in
    `LRbicx4/`, `LR_bicubic/X4/`, `DIV2K_train_LR_bicubic/X4/` or `DIV2K_train_LR_x8/`, in the same folder or archive,
    or beside it if `tree` is itself a folder `HR` or `DIV2K_train_HR`. They are called `{}x4` or `{}`.

    Args:
        tree: where to look.
        given_scales: factors that low-quality images are wanted for.
        lr: where these are instead, by factor: in the folder or archive itself, in `X4/` or in the only folder there.

    Raises:
        InputError: no image at all, several sets in one folder, or no LR folder for a factor. What is wrong with
            single images is in `Finds.skips`.
    """
    home = find_home(tree)
    files = {path: file for path, file in home.hr.files.items() if not is_lr(path)}
    if not files:
        raise InputError(f"{tree.label}: has no images; name a folder or an archive of originals")
    named = by_name(files)
    partners = {}
    for scale in given_scales:
        places = places_in(lr[scale], scale) if lr and scale in lr else home.lr_places(scale)
        partners[scale] = max((Partners(place, scale) for place in places), key=lambda each: each.count(named))
    originals, skips = [], []
    for name, paths in named.items():
        try:
            gt = only_one(home.hr, name, paths)
            originals.append(Original(name, gt, {scale: each.of(name, gt) for scale, each in partners.items()}))
        except InputError as error:
            skips += [Skip(name, files[path].label, str(error)) for path in paths]
    return Finds(tuple(originals), tuple(skips), tree.ignored)
