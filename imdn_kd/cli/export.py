"""`imdn-kd export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt


class To(str, Enum):
    """Values of `imdn_kd.inference.export.formats.NAMES`."""

    onnx = "onnx"
    openvino = "openvino"
    ncnn = "ncnn"
    torchscript = "torchscript"
    pt2 = "pt2"


def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Name of a student, a model file, or any checkpoint that spandrel knows.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[To, typer.Option("--to", "-t", help="Format.", show_default=False)] = ...,  # type: ignore[assignment]
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="File to write, with the suffix of the format.")
    ] = ...,  # type: ignore[assignment]
    arch: opt.Arch = None,
    options: Annotated[
        Path | None,
        typer.Option("-opt", "--options", metavar="FILE", help="Take network and weights from a BasicSR option file."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Compare results on these images (default: photographs that come with scikit-image)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Export a model for other runtimes, for images of any size, and compare it with PyTorch.

    Results are compared on images of more than 20 sizes. Where they differ by more than 1e-4 of the range, or the
    network holds what the format has no word for, nothing is written.

    imdn-kd export imdn_rtc_x2 --to onnx -o imdn_rtc_x2.onnx
    """
    import itertools

    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.report import report_export
    from imdn_kd.inference.export.job import export_model
    from imdn_kd.inference.export.parity import SIZES
    from imdn_kd.inference.export.photographs import read_photographs
    from imdn_kd.inference.model_file import load_model

    opt.import_own(imports)
    spec, key = None if arch is None else opt.parse_arch(arch), None
    if options is not None:
        file = opt.read_network(options)
        spec = spec or file.spec
        if model is None:
            model, key = file.weights, file.key
    if model is None:
        raise InputError("no model to export; name a student or a model file", code="cli.no-weights")
    photographs = [] if images is None else read_photographs(images, SIZES)
    steps = itertools.count(1)
    with FileProgress(total=SIZES + 2) as progress:
        made = export_model(
            load_model(model, spec, key=key),
            to.value,
            output,
            name=Path(model).stem if Path(model).is_file() else model,
            photographs=photographs,
            overwrite=overwrite,
            on_step=lambda: progress.at(next(steps)),
        )
    report_export(made, "photographs of scikit-image" if images is None else str(images)).show(as_json=as_json)
