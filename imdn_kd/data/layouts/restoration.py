"""Folders of clean images and of inputs of the same size, as sets for denoising, deblurring and the like have them.

Written after SIDD and GoPro of Restormer and NAFNet (`target`, `input`; `gt`, `lq`), GoPro (`sharp`, `blur`), CBSD68
(`original_png`, `noisy25`), LOL (`high`, `low`), rain sets (`norain`, `rain`) and what `imdn-kd prepare` writes (`HR`,
`LRx1`).
"""

from __future__ import annotations

import re
from pathlib import Path

from imdn_kd.errors import InputError

_CLEAN = re.compile(
    r"hr|hq|gt|clean|clear|target|sharp|high|norain|reference|ground_?truth|original(_png)?", re.IGNORECASE
)
_INPUT = re.compile(
    r"(noisy|noise|input|lq|blur|blurry|jpe?g|low|rain|rainy|hazy|degraded|compressed)[_-]?(sigma|q)?\d*|LR(bic)?x1",
    re.IGNORECASE,
)


def find_clean_folder(folder: Path) -> Path:
    """The folder of clean images in `folder`, which is `folder` itself if none is called so.

    Raises:
        InputError: `data.several-sets`, there are several.
    """
    found = _inside(folder, _CLEAN)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(
            f"{folder}: has several folders of clean images ({names}); keep one, or name it", code="data.several-sets"
        )
    return found[0] if found else folder


def find_input_folder(clean: Path) -> Path | None:
    """The folder of inputs beside a folder of clean images, or in it; None if there is none.

    Raises:
        InputError: `data.several-inputs`, there are several.
    """
    beside = clean.parent if _CLEAN.fullmatch(clean.name) else clean
    found = _inside(beside, _INPUT)
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(
            f"{beside}: has several folders of inputs ({names}); say which (--lr {found[0]}, or dataroot_lq)",
            code="data.several-inputs",
        )
    return found[0] if found else None


def _inside(folder: Path, kind: re.Pattern[str]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if kind.fullmatch(path.name) and path.is_dir())
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be listed ({error.strerror}); change its permissions", code="data.cannot-read"
        ) from error
