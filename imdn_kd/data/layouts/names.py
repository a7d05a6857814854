"""Names in data sets: what those of folders and files say of HR images, LR images and scales.

Written after the published sets: EDSR (`HR`, `LR_bicubic/X4`), BasicSR and HAT (`GTmod12`, `LRbicx4`), DIV2K
(`DIV2K_valid_HR`, `DIV2K_valid_LR_bicubic/X4`), RCAN (`HR/Set5/x4`, `LR/LRBI/Set5/x4`, `baby_HR_x4`, `baby_LRBI_x4`),
IMDN (`Set5`, `Set5_LR/x4`), SelfExSR (`image_SRF_4`, `img_001_SRF_4_HR`, `img_001_SRF_4_LR`), RealSR (`Canon_001_HR`,
`Canon_001_LR4`), copies on Hugging Face (`Set5_HR`, `Set5_LR_x4`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

from imdn_kd.data.degradation.schema import Step


@dataclass(frozen=True)
class DataSource:
    """A data set as the user names it.

    Attributes:
        data: folder, or the name of one in the folder of all data sets.
        lr: folder of the LR images, instead of the usual places.
        name: shown in tables, instead of the name of the folder.
        lr_name: name of the LR image of HR image `{}`, less the suffix, instead of the usual ones.
        steps: degradations that make the LR images, instead of files; empty for files, or MATLAB's bicubic.
        grey: turn the images grey first, see `read_grey`.
    """

    data: str | Path
    lr: str | Path | None = None
    name: str | None = None
    lr_name: str | None = None
    steps: tuple[Step, ...] = ()
    grey: bool = False


@dataclass(frozen=True)
class FolderName:
    """What the name of a folder says.

    Attributes:
        role: `hr` or `lr` images; `scale` says nothing but a scale; `kind` nothing but a degradation.
        title: `DIV2K_train` of `DIV2K_train_HR`.
        scale: of the LR images, or the one that HR images were cropped for.
        kind: degradation of LR images: `bicubic`, `unknown`, `BD`, ...; empty where nothing is said.
        multiple: of px that the sides of HR images were cropped to: 12 of `GTmod12`.
        patches: whether the images are pieces cut from others, as `DIV2K_train_HR_sub`.
    """

    role: Literal["hr", "lr", "scale", "kind", ""] = ""
    title: str = ""
    scale: Fraction | None = None
    kind: str = ""
    multiple: int = 0
    patches: bool = False


_NUMBER = r"(\d+(?:\.\d+)?)"
_SCALE = re.compile(rf"x{_NUMBER}|{_NUMBER}x", re.IGNORECASE)
_MARK = re.compile(
    rf"(?:x?{_NUMBER}x?)?(?P<mark>hr|gt|lr|lq)(?:mod(?P<multiple>\d+)|(?P<kind>bicubic|bic|bi|bd|dn)?(?:x?{_NUMBER})?)",
    re.IGNORECASE,
)
_KINDS = re.compile(r"bicubic|bic|bi|bd|dn|unknown|mild|difficult|wild", re.IGNORECASE)
_FILLERS = ("images", "image", "imgs", "img", "srf", "sub")
HR_WORDS = ("original", "originals", "target", "targets")


def read_folder_name(name: str) -> FolderName:
    """Read the name of a folder; all is empty where it says nothing."""
    if name.lower() in HR_WORDS:
        return FolderName("hr")
    words = [found.group() for found in re.finditer(r"[^_\- ]+", name)]
    at, mark = next(((at, found) for at, word in enumerate(words) if (found := _MARK.fullmatch(word))), (-1, None))
    after = words[at + 1 :]
    scales, others = [], []
    for before, word in zip(["", *after], after, strict=False):
        found = _SCALE.fullmatch(word) or (re.fullmatch(_NUMBER, word) if before.lower() == "srf" else None)
        if found:
            scales.append(_first_number(found))
        elif word.lower() not in _FILLERS:
            others.append(word)
    patches = "sub" in name.lower().split("_")
    if mark is None:
        if scales and not others:
            return FolderName("scale", scale=scales[0], patches=patches)
        return FolderName("kind", kind=name) if _KINDS.fullmatch(name) else FolderName()
    scale = next(filter(None, [_first_number(mark), *scales]), None)
    title = "_".join(words[:at])
    if mark["mark"].lower() in ("hr", "gt"):
        if others or mark["kind"]:
            return FolderName()
        return FolderName("hr", title, scale, multiple=int(mark["multiple"] or 0), patches=patches)
    if mark["multiple"]:
        return FolderName()
    return FolderName("lr", title, scale, "_".join([*filter(None, [mark["kind"]]), *others]), patches=patches)


def _first_number(found: re.Match[str]) -> Fraction | None:
    numbers = [group for group in found.groups() if group and re.fullmatch(_NUMBER, group)]
    return Fraction(numbers[0]) if numbers else None


_HR_FILE = re.compile(rf"(.+?)[_-](?:HR|GT)(?:[_-]?x{_NUMBER})?", re.IGNORECASE)
_LR_FILE = re.compile(rf"(.+?)(?:[_-](LR|LQ|LRBI|LRBD|LRDN)(?:[_-]?x?{_NUMBER})?|[_-]?x{_NUMBER}[md]?)", re.IGNORECASE)


def hr_base(stem: str) -> str | None:
    """`baby` of the HR image `baby_HR` or `baby_HR_x4`; None where the name does not say that it is one."""
    found = _HR_FILE.fullmatch(stem)
    return found[1] if found else None


@dataclass(frozen=True)
class LrFileName:
    """What the name of an LR image says: `baby` and 4 of `babyx4` or `baby_LRBI_x4`; None for no scale."""

    base: str
    scale: Fraction | None
    says_lr: bool


def lr_base(stem: str) -> LrFileName | None:
    """Read the name of an LR image, without suffix; None of a name that does not say that it is one."""
    found = _LR_FILE.fullmatch(stem)
    if not found:
        return None
    scale = found[3] or found[4]
    return LrFileName(found[1], Fraction(scale) if scale else None, bool(found[2]))


def lr_names(stem: str, scale: Fraction) -> list[str]:
    """Names that the LR image of an HR image may have, the most usual ones first; all without suffix."""
    times = scale_text(scale)
    ends = ("x{n}", "", "_x{n}", "_LR", "_LRx{n}", "_LR_x{n}", "_LR{n}", "_LRBI_x{n}", "_LRBIx{n}", "x{n}m", "x{n}d")
    # Not str.format on the stem: file names may have braces of their own.
    names = [stem + end.format(n=times) for end in ends]
    base = hr_base(stem)
    if base is not None:
        names += [base + end.format(n=times) for end in ends]
    if stem.endswith(f"_x{times}"):  # DRealSR
        names.append(f"{stem.removesuffix(f'_x{times}')}_x1")
    return names


def scale_text(scale: Fraction) -> str:
    """`4`, `1.5`."""
    return f"{float(scale):g}"
