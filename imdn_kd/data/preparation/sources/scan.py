"""The images of a data set, with the LR images that are given for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from imdn_kd.data.layouts.file_tree import FileTree, ImageFile
from imdn_kd.data.layouts.finder import DatasetLayout, find_layout, lr_places
from imdn_kd.data.layouts.lr_index import LrIndex, best_index, by_name, only_one
from imdn_kd.data.layouts.names import scale_text
from imdn_kd.errors import InputError


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
        notes: a line each for the LR images that are used, and for those that are passed over.
    """

    images: tuple[SourceImage, ...]
    skipped: tuple[SkippedImage, ...]
    ignored: int
    notes: tuple[str, ...] = ()


def scan_dataset(
    tree: FileTree,
    given_scales: Sequence[Fraction] = (),
    lr: Mapping[Fraction, FileTree] | None = None,
    *,
    made_scales: Sequence[Fraction] = (),
) -> ScanResult:
    """List the HR images in a folder or archive and, for scales whose LR images are given as files, these.

    Args:
        tree: the folder or archive; see `find_layout`.
        given_scales: scales that LR images are wanted for.
        lr: where these are instead, by scale: in the folder or archive itself, in `X4/` or in the only folder there.
        made_scales: scales whose LR images are made, so that those in files are passed over.

    Raises:
        InputError: `data.no-images`, `data.several-sets`, or `data.lr-missing` for a scale without a folder of LR
            images. What is wrong with single images is in `ScanResult.skipped`.
    """
    layout = find_layout(tree, (*given_scales, *made_scales))
    files = layout.hr.files
    if not files:
        raise InputError(
            f"{tree.label}: has no images; name a folder or an archive of HR images", code="data.no-images"
        )
    named = by_name(files)
    notes = [f"passed over: {line}" for line in layout.passed_over]
    lr_images: dict[Fraction, LrIndex] = {}
    for scale in given_scales:
        if lr and scale in lr:
            lr_images[scale] = best_index(lr_places(lr[scale], scale), scale, list(named))
        else:
            lr_images[scale], more = _beside(layout, scale, list(named))
            notes += more
    for scale in made_scales:
        choice = layout.choose_lr(scale, list(named))
        if choice.index:
            notes.append(
                f"LR images of x{scale_text(scale)} are made; {choice.label} is passed over (--degradation given)"
            )
    originals, skips = [], []
    for name, paths in named.items():
        try:
            gt = only_one(layout.hr, name, paths)
            originals.append(SourceImage(name, gt, {scale: each.of(name, gt) for scale, each in lr_images.items()}))
        except InputError as error:
            skips += [SkippedImage(name, files[path].label, str(error)) for path in paths]
    return ScanResult(tuple(originals), tuple(skips), tree.ignored, tuple(notes))


def _beside(layout: DatasetLayout, scale: Fraction, names: Sequence[str]) -> tuple[LrIndex, list[str]]:
    """The LR images of a scale in the usual places, and notes on what was used; InputError if there are none."""
    choice = layout.choose_lr(scale, names)
    passed = [f"passed over: {line}" for line in choice.passed_over]
    if choice.index is None:
        also = f" ({'; '.join(passed)})" if passed else ""
        raise InputError(
            f"{layout.hr.label}: has no LR images for scale {scale_text(scale)} in it or beside it{also}; give --lr, "
            "or leave out --degradation given",
            code="data.lr-missing",
        )
    return choice.index, [f"LR images of x{scale_text(scale)}: {choice.label}", *passed]
