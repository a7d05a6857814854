"""Folders and file names of data sets, and what a user says to find one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HR_FOLDERS = ("HR", "GTmod12", "GT")
"""Where a data set keeps its originals; without any of these the folder itself holds them."""

LR_FOLDERS = ("LRbicx{scale}", "LR_bicubic/X{scale}")
"""Where a data set keeps LR images, beside its originals."""

LR_NAMES = ("{}x{scale}", "{}")
"""What the LR image of original `{}` is called, less the suffix."""


@dataclass(frozen=True)
class DataSource:
    """What a user says of a data set.

    Attributes:
        data: folder, or the name of one in the folder of all data sets.
        lr: folder of the LR images, instead of the usual places.
        name: for tables, instead of the name of the folder.
        lr_name: what the LR image of original `{}` is called, less the suffix, instead of `LR_NAMES`.
    """

    data: str | Path
    lr: str | Path | None = None
    name: str | None = None
    lr_name: str | None = None
