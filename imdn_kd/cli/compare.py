"""`imdn-kd compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say

if TYPE_CHECKING:
    from imdn_kd.image.rgb import RgbImage


def compare(
    pictures: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="Pictures of one size; with --model, the one to enlarge."),
    ] = None,
    hr: Annotated[
        Path | None,
        typer.Option(
            "--hr", metavar="FILE", help="The ground truth. With --model and without PICTURE, its LR image is made."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            autocompletion=opt.complete_students,
            help="Enlarge PICTURE by this student or model file; several may be given.",
        ),
    ] = None,
    scale: Annotated[
        int | None,
        typer.Option(
            "--scale",
            "-s",
            min=1,
            help="Scale (default: that of the models). Without models: px cut from borders before PSNR and SSIM.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="NAME", help="What a model is called on the page, in the order of --model."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The page, .html.")] = Path(
        "comparison.html"
    ),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a page that is there.")] = False,
    device: opt.Device = "auto",
    engine: opt.EngineOption = "torch",
    imports: opt.Imports = None,
    quiet: opt.Quiet = False,
) -> None:
    """Compare pictures, or models on a picture, on a page: a slider, error maps, crops where they differ most, figures.

    The page is one HTML file with all pictures in it. Errors are differences from --hr, or else from the first picture;
    PSNR and SSIM need --hr. Models are shown beside bicubic interpolation.

    imdn-kd compare small.png large.png --hr photo.png -o page.html

    imdn-kd compare photo.jpg --model imdn_rtc_x4 --model plain_m_x4
    """
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.compare_page import write_page
    from imdn_kd.evaluation.comparison import compare_pictures
    from imdn_kd.image.rgb import read_rgb
    from imdn_kd.utils.files import check_folder

    opt.import_own(imports)
    paths = pictures or []
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: give the page a name that ends in .html", code="compare.output")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already; choose another name, or add --overwrite", code="file.exists")
    check_folder(output)
    if model and (len(paths) > 1 or not (paths or hr)):
        raise InputError(
            "--model enlarges one picture; give one, or --hr alone to make it from that", code="compare.model-input"
        )
    if label and len(label) != len(model or []):
        raise InputError("--label names a model; give as many as there are of --model", code="cli.labels")
    truth = None if hr is None else read_rgb(hr)
    if model:
        source = paths[0] if paths else hr
        assert source is not None  # noqa: S101 - refused above
        shown, scale, truth = _enlarged(
            model, scale, read_rgb(source), truth, device, engine, made=not paths, quiet=quiet
        )
        title = source.name
        if label:
            shown[-len(label) :] = zip(label, (pixels for _, pixels in shown[-len(label) :]), strict=True)
    else:
        shown = [(name, read_rgb(path)) for name, path in zip(_names(paths), paths, strict=True)]
        title = " / ".join(name for name, _ in shown)
    found = compare_pictures(shown, truth, scale or 1)
    write_page(found, output, title=f"Comparison: {title}", overwrite=overwrite)
    if not quiet:
        say(f"{output}: {len(found.pictures)} pictures of {shown[0][1].shape[1]}x{shown[0][1].shape[0]} px")


def _enlarged(
    models: list[str],
    scale: int | None,
    image: RgbImage,
    truth: RgbImage | None,
    device: str,
    engine: str,
    *,
    made: bool,
    quiet: bool,
) -> tuple[list[tuple[str, RgbImage]], int, RgbImage | None]:
    """What bicubic interpolation and the models make of an image, the scale, and the ground truth to compare with.

    With `made`, the image is the ground truth, of which the LR image is still to be made.
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.benchmark import BICUBIC, INPUT, open_upsamplers
    from imdn_kd.image.resize import imresize

    named = models if {BICUBIC, INPUT} & set(models) else [BICUBIC, *models]
    upsamplers = open_upsamplers(named, scale=scale, device=device, engine=engine)
    scales = {each.scale for each in upsamplers}
    if len(scales) > 1:
        found = " and ".join(f"x{each}" for each in sorted(scales))
        raise InputError(f"--model: these enlarge by {found}; say by which to compare (--scale)", code="compare.scale")
    (factor,) = scales
    if made:
        height, width = (side // factor * factor for side in image.shape[:2])
        if not height or not width:
            raise InputError(f"--hr: is too small to be shrunk by {factor}; give a larger one", code="compare.size")
        image = truth = image[:height, :width]
        if factor > 1:
            image = imresize(image, 1 / factor)
        else:
            complain("--hr: models of scale 1 restore pictures; this one has nothing to be restored")
    shown = []
    with FileProgress(total=len(upsamplers), quiet=quiet) as progress:
        for each in upsamplers:
            progress.begin(each.name)
            shown.append((each.name, each.enlarge(image)))
            progress.file_done(shown[-1][1].shape[0] * shown[-1][1].shape[1])
    return shown, factor, truth


def _names(paths: list[Path]) -> list[str]:
    """Names of files, with folders where several have one name."""
    names = [path.name for path in paths]
    return names if len({*names}) == len(names) else [str(path) for path in paths]
