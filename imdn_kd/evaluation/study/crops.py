"""Crops of what the arms make of the same images, where they differ most, beside the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from imdn_kd.evaluation.study.folder import HR, StudyFolder
from imdn_kd.evaluation.study.schema import StudyOptions
from imdn_kd.image.io import read_image
from imdn_kd.utils.files import atomic_path

SIDE = 64
"""Of a crop, px."""

STEP = 32
"""From one crop that is looked at to the next, px."""

MOST = 4
"""How many crops are shown."""

_ZOOM, _GAP, _TEXT = 2, 4, 14

Pixels = npt.NDArray[np.float32]


def draw_crops(study: StudyOptions, folder: StudyFolder, arms: Sequence[str]) -> list[str]:
    """Write `crops.png`: a row for each crop, the ground truth first, then the arms.

    The rule: of all squares of `SIDE` px at multiples of `STEP` px in the reported images, those are shown in which the
    results of the arms with the first seed differ most (mean over pixels of the variance over arms), one an image, and
    `MOST` in all.

    Args:
        study: the study.
        folder: its folder.
        arms: those whose images are there.

    Returns:
        Lines for the report; none if there are no two arms to compare.
    """
    if len(arms) < 2:
        return []
    found: list[tuple[float, str, str, int, int]] = []
    for data in study.report:
        for path in sorted((folder.images / HR / data).glob("*.png")):
            several = [folder.images / arm / data / path.name for arm in arms]
            if all(other.is_file() for other in several):
                best = _most_different([_read(other) for other in several])
                if best is not None:
                    found.append((-best[0], data, path.name, best[1], best[2]))
    chosen = sorted(found)[:MOST]
    if not chosen:
        return []
    _draw(folder, arms, chosen)
    places = "; ".join(f"{data}/{Path(name).stem} from ({left}, {top})" for _, data, name, top, left in chosen)
    return [
        "![Crops where the arms differ most](crops.png)",
        f"Crops of {SIDE} px, {_ZOOM} x, of the runs with seed {study.seeds[0]}. Columns: {', '.join((HR, *arms))}. "
        f"Rows: {places}. Of all squares at multiples of {STEP} px these have the largest variance over arms, one of "
        f"each image, {MOST} at most.",
    ]


def _read(path: Path) -> Pixels:
    return read_image(path).pixels.astype(np.float32)


def _most_different(images: Sequence[Pixels]) -> tuple[float, int, int] | None:
    """Variance over images, mean over the px of the crop, and its (top, left); None if there is no room for one."""
    spread = np.var(np.stack(images), axis=0)
    spread = spread.mean(-1) if spread.ndim == 3 else spread
    if min(spread.shape) < SIDE:
        return None
    sums = np.pad(spread.astype(np.float64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    crops = sums[SIDE:, SIDE:] - sums[:-SIDE, SIDE:] - sums[SIDE:, :-SIDE] + sums[:-SIDE, :-SIDE]
    grid = crops[::STEP, ::STEP]
    row, column = np.unravel_index(int(grid.argmax()), grid.shape)
    return float(grid[row, column]) / SIDE**2, int(row) * STEP, int(column) * STEP


def _draw(folder: StudyFolder, arms: Sequence[str], chosen: Sequence[tuple[float, str, str, int, int]]) -> None:
    columns, cell = (HR, *arms), SIDE * _ZOOM
    sheet = Image.new("RGB", (len(columns) * (cell + _GAP) - _GAP, _TEXT + len(chosen) * (cell + _GAP) - _GAP), "white")
    draw: Any = ImageDraw.Draw(sheet)
    for column, arm in enumerate(columns):
        draw.text((column * (cell + _GAP), 0), arm[: cell // 6], fill="black")
        for row, (_, data, name, top, left) in enumerate(chosen):
            with Image.open(folder.images / arm / data / name) as image:
                crop = image.convert("RGB").crop((left, top, left + SIDE, top + SIDE))
            crop = crop.resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(crop, (column * (cell + _GAP), _TEXT + row * (cell + _GAP)))
    with atomic_path(folder.path / "crops.png") as temporary:
        sheet.save(temporary)
