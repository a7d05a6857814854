"""Folder and file names of data sets, and the user's name for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HR_FOLDERS = ("HR", "GTmod12", "GT")
"""Folders that HR images are in; without any of these, the data set itself."""

LR_FOLDERS = ("LRbicx{scale}", "LR_bicubic/X{scale}")
"""Folders that LR images are in, beside the HR images."""

LR_NAMES = ("{}x{scale}", "{}")
"""Names of the LR image of HR image `{}`, less the suffix."""


@dataclass(frozen=True)
class DataSource:
    """A data set as the user names it.

    Attributes:
        data: folder, or the name of one in the folder of all data sets.
        lr: folder of the LR images, instead of the usual places.
        name: shown in tables, instead of the name of the folder.
        lr_name: name of the LR image of HR image `{}`, less the suffix, instead of `LR_NAMES`.
    """

    data: str | Path
    lr: str | Path | None = None
    name: str | None = None
    lr_name: str | None = None
