"""`imdn-kd export`."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt

if TYPE_CHECKING:
    from imdn_kd.evaluation.benchmark import SetScore
    from imdn_kd.inference.model_file import ModelFile


class To(str, Enum):
    """Values of `imdn_kd.inference.export.formats.NAMES`, and a page."""

    onnx = "onnx"
    openvino = "openvino"
    ncnn = "ncnn"
    torchscript = "torchscript"
    pt2 = "pt2"
    web = "web"


def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            autocompletion=opt.complete_students,
            help="Name of a student, a model file, or any checkpoint that spandrel knows.",
            show_default=False,
        ),
    ] = None,
    to: Annotated[To, typer.Option("--to", "-t", help="Format.", show_default=False)] = ...,  # type: ignore[assignment]
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PATH", help="File to write, with the suffix of the format; for web a folder."
        ),
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
    int8: Annotated[
        bool, typer.Option("--int8", help="Let convolutions run in 8 bits, calibrated on --images.")
    ] = False,
    hr: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="With --int8: measure PSNR on these HR images, before and after."),
    ] = None,
    min_psnr: Annotated[
        float | None,
        typer.Option(help="In 8 bits: least PSNR, dB, to the result of fp32; with less, nothing is written (45)."),
    ] = None,
    runtime: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="For web: the package onnxruntime-web, unpacked (default: npm gets it)."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Export a model for other runtimes, for images of any size, and compare it with PyTorch.

    With --int8, results are compared with those of fp32 by PSNR. A model that was trained in 8 bits is exported in
    these, with its own ranges.

    Results are compared on images of more than 20 sizes. Where they differ by more than 1e-4 of the range, or the
    network holds what the format has no word for, nothing is written.

    imdn-kd export imdn_rtc_x2 --to onnx -o imdn_rtc_x2.onnx

    imdn-kd export plain_m_x4 --to onnx --int8 --images photos -o plain_m_x4_int8.onnx

    imdn-kd export plain_m_x4 --to web -o page
    """
    import itertools

    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.report import report_export
    from imdn_kd.inference.export.job import LEAST_PSNR, export_model
    from imdn_kd.inference.export.parity import SIZES
    from imdn_kd.inference.export.photographs import read_photographs
    from imdn_kd.inference.model_file import load_model
    from imdn_kd.inference.quantize.post_training import quantize_model
    from imdn_kd.web.page import write_page

    opt.import_own(imports)
    if to is To.web and int8:
        raise InputError("a page has no 8 bits; leave out --int8", code="export.no-int8")
    if runtime is not None and to is not To.web:
        raise InputError("--runtime is for --to web; leave it out", code="cli.exclusive-options")
    if min_psnr is not None and to is To.web:
        raise InputError("--min-psnr is for --int8, which a page has not; leave it out", code="cli.exclusive-options")
    if int8 and images is None:
        raise InputError(
            "--int8 is calibrated on images like those to be upscaled; give a folder of some with --images",
            code="cli.no-images",
        )
    if hr is not None and not int8:
        raise InputError("--hr compares fp32 with --int8; give both", code="cli.exclusive-options")
    spec, key = None if arch is None else opt.parse_arch(arch), None
    if options is not None:
        given = opt.read_network(options)
        spec = spec or given.spec
        if model is None:
            model, key = given.weights, given.key
    if model is None:
        raise InputError("no model to export; name a student or a model file", code="cli.no-weights")
    photographs = [] if images is None else read_photographs(images, SIZES)
    file = load_model(model, spec, key=key)
    forms = {"fp32": file}
    if int8:
        forms["int8"] = quantize_model(file, photographs)
    steps = itertools.count(1)
    with FileProgress(total=SIZES + 2, quiet=quiet) as progress:
        progress.begin(output.name)

        def on_step() -> None:
            progress.at(next(steps))

        if to is To.web:
            made = write_page(
                file,
                output,
                name=file.name,
                runtime=runtime,
                photographs=photographs,
                overwrite=overwrite,
                on_step=on_step,
            )
        else:
            made = export_model(
                forms["int8" if int8 else "fp32"],
                to.value,
                output,
                name=file.name,
                photographs=photographs,
                reference=file.network if int8 else None,
                least_psnr=LEAST_PSNR if min_psnr is None else min_psnr,
                overwrite=overwrite,
                on_step=on_step,
            )
    where = "photographs of scikit-image" if images is None else str(images)
    report = report_export(made, where, [] if hr is None else _scores(forms, hr))
    if as_json or not quiet:
        report.show(as_json=as_json)


def _scores(forms: Mapping[str, ModelFile], folder: Path) -> list[SetScore]:
    """The scores of the forms of a model on the HR images of a folder, by the protocol of `imdn-kd benchmark`."""
    from imdn_kd.data.benchmark_sets import find_set
    from imdn_kd.evaluation.benchmark import EvalTask, make_upsampler, score
    from imdn_kd.inference.upscaler import Upscaler

    scale = next(iter(forms.values())).network.info.scale
    images = find_set(folder, scale).checked()
    upscalers = {name: Upscaler(file, device="cpu", precision="fp32", engine="torch") for name, file in forms.items()}
    return [
        score(EvalTask(make_upsampler(upscaler, name, scale), images), protocol=None)
        for name, upscaler in upscalers.items()
    ]
