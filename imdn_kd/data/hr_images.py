"""HR images alone, whose LR patches are made while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imdn_kd.data.base import exact_scale
from imdn_kd.data.image_lists import MOST_LINES, Entries, Files, Images, backend_of, names_in_folder, names_in_list
from imdn_kd.data.lmdb_io import LmdbImages
from imdn_kd.errors import Problems
from imdn_kd.image.rgb import RgbImage


class HrImages:
    """`ImagePairs` without `lq`, from image files or an LMDB, with the options of BasicSR's paired data set.

    Args:
        scale: px of `gt` per px of the LR images that are made of them, 1 or more.
        dataroot_gt: folder of the HR images.
        meta_info_file: as for `PairedImageDataset`.
        io_backend: as for `PairedImageDataset`.

    Raises:
        InputError: as `names_in_folder`, `names_in_list`, `backend_of` and `LmdbImages`.
    """

    def __init__(
        self,
        *,
        scale: float | str | Fraction,
        dataroot_gt: Path | str,
        meta_info_file: Path | str | None = None,
        io_backend: Mapping[str, Any] | None = None,
    ) -> None:
        self.scale = exact_scale(scale)
        self.planes: Sequence[str] = ("gt",)
        self._images: Images
        folder = Path(dataroot_gt)
        if backend_of(io_backend) == "lmdb":
            database = LmdbImages(folder)
            self._images = Entries(database, sorted(database.keys))
        else:
            names = names_in_folder(folder) if meta_info_file is None else names_in_list(folder, Path(meta_info_file))
            self._images = Files([folder / name for name in names])
        self._sizes: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        """Return the path of an image; of LMDB, the folder and the key."""
        return self._images.name(index)

    def lq_sizes(self) -> npt.NDArray[np.int64]:
        """Return the (height, width) of what will be every LR image, px, from headers or meta_info.txt; read once.

        Raises:
            InputError: with a line for each image without a usable header that cannot be decoded.
        """
        if self._sizes is None:
            sizes = np.zeros((len(self), 2), np.int64)
            with Problems(most=MOST_LINES) as problems:
                for index in range(len(self)):
                    with problems.at():
                        sizes[index] = self._images.size(index)
            self._sizes = sizes // self.scale.numerator * self.scale.denominator
            self._sizes.setflags(write=False)
        return self._sizes

    def read(self, index: int) -> dict[str, RgbImage]:
        """Return `gt`, H x W x 3, RGB, cropped to multiples of the scale; raises InputError if it cannot be read."""
        hr = self._images.read(index)
        height, width = (side // self.scale.numerator * self.scale.numerator for side in hr.shape[:2])
        return {"gt": hr[:height, :width]}
