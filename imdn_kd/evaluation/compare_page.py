"""A comparison of pictures as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from imdn_kd.evaluation.comparison import Comparison, Shown, figure
from imdn_kd.evaluation.crops import Place
from imdn_kd.evaluation.embedded import picture_figure, picture_tag
from imdn_kd.utils.files import atomic_path


def write_page(comparison: Comparison, target: Path, *, title: str, overwrite: bool = False) -> None:
    """Write a comparison as a page with a slider, figures, crops and error maps; all pictures are in it, lossless.

    Args:
        comparison: what it shows.
        target: the file.
        title: of the page.
        overwrite: replace a file that is there.

    Raises:
        InputError: `file.exists` or `file.cannot-write`.
    """
    with atomic_path(target, overwrite=overwrite) as path:
        path.write_text(page(comparison, title), encoding="utf-8")


def page(comparison: Comparison, title: str) -> str:
    """The page as text."""
    template = resources.files("imdn_kd.evaluation").joinpath("compare.html").read_text(encoding="utf-8")
    measured = any(each.psnr is not None for each in comparison.pictures)
    heads = ["picture", *(["PSNR, dB", "SSIM"] if measured else []), "mean error", "highest error"]
    return Template(template).substitute(
        title=escape(title),
        heads="".join(f'<th scope="col">{head}</th>' for head in heads),
        figures="\n".join(_row(each, measured) for each in comparison.pictures),
        protocol=escape(f"{comparison.protocol}." if comparison.protocol else "Without HR, no PSNR and SSIM (--hr)."),
        crops="\n".join(_crops(comparison)),
        reference=escape(comparison.reference),
        white=str(comparison.white),
        maps="\n".join(_maps(comparison)),
        pictures="\n".join(picture_figure(each.pixels, each.name) for each in comparison.pictures),
    )


def _row(shown: Shown, measured: bool) -> str:
    cells = [figure(shown.psnr, 2), figure(shown.ssim, 4)] if measured else []
    errors = ["-", "-"] if shown.error is None else [f"{shown.error.mean():.2f}", str(shown.error.max())]
    row = "".join(f"<td>{cell}</td>" for cell in (*cells, *errors))
    return f'<tr><th scope="row">{escape(shown.name)}</th>{row}</tr>'


def _crops(comparison: Comparison) -> Iterator[str]:
    heads = "".join(f'<th scope="col">{escape(each.name)}</th>' for each in comparison.pictures)
    yield f'<thead><tr><th scope="col">place</th>{heads}</tr></thead>'
    yield "<tbody>"
    for place in comparison.places:
        top, left, height, width = place
        where = f"{width}x{height} px at {left}, {top}"
        crops = [picture_tag(_part(each.pixels, place), f"{each.name}, {where}") for each in comparison.pictures]
        cells = "".join(f"<td>{crop}</td>" for crop in crops)
        yield f'<tr><th scope="row">{where}</th>{cells}</tr>'
    yield "</tbody>"


def _maps(comparison: Comparison) -> Iterator[str]:
    for shown in comparison.pictures:
        if shown.error is not None:
            levels = np.minimum(shown.error.astype(np.uint16) * 255 // comparison.white, 255).astype(np.uint8)
            yield picture_figure(levels, f"error of {shown.name}")


def _part(pixels: npt.NDArray[np.uint8], place: Place) -> npt.NDArray[np.uint8]:
    top, left, height, width = place
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])
