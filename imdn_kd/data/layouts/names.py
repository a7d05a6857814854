"""Folder and file names of data sets, and the user's name for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imdn_kd.data.degradation_schema import Step

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
        steps: degradations that make the LR images, instead of files; empty for files, or MATLAB's bicubic.
        grey: turn the images grey first, see `read_grey`.
    """

    data: str | Path
    lr: str | Path | None = None
    name: str | None = None
    lr_name: str | None = None
    steps: tuple[Step, ...] = ()
    grey: bool = False
