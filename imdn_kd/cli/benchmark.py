"""`imdn-kd benchmark`."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain


class Space(str, Enum):
    """Values of `imdn_kd.evaluation.protocol.Space` that tables use."""

    y = "y"
    rgb = "rgb"


def benchmark(
    more_data: Annotated[
        list[str] | None, typer.Argument(metavar="[DATA]...", help="Data sets, as after --data.", show_default=False)
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            autocompletion=opt.complete_students,
            help="Name of a student, a model file, or bicubic (at scale 1: input); can be given several times. "
            "Default: the students.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", "-d", help="Folder of images, or a data set in --root; several may follow: --data Set5 Set14."
        ),
    ] = None,
    arch: opt.Arch = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", min=1, help="Scale (default: that of each model).")
    ] = None,
    lr: Annotated[
        Path | None,
        typer.Option("--lr", metavar="FOLDER", help="The LR images, or inputs of scale 1, of the one data set."),
    ] = None,
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            "--degrade",
            metavar="STEPS",
            help="Make the inputs so: noise=25, jpeg=10, blur=1.6+noise=2; to enlarge, bicubic+noise=5 or "
            "real_esrgan. Can be given several times.",
        ),
    ] = None,
    grey: Annotated[
        bool, typer.Option("--grey", help="Turn images grey first, as tables of grey denoising and of JPEG do.")
    ] = False,
    space: Annotated[
        Space | None,
        typer.Option("--space", help="Measure Y or RGB (default: as published tables do).", show_default=False),
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of data sets given by name.")] = Path("datasets"),
    options: Annotated[
        Path | None,
        typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml); other options override it."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Measure the same images by other protocols too.")] = False,
    self_ensemble: opt.SelfEnsemble = False,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1, mps.", show_default="auto")] = None,
    precision: opt.PrecisionOption = opt.Precision.fp32,
    engine: opt.EngineOption = "torch",
    save: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Save the results there.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a report: .md or .json.")
    ] = None,
    imports: opt.Imports = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, with a score for each image.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Score models on data sets: PSNR and SSIM, by the protocol of published tables.

    A data set is a folder of HR images, or one with HR/ and LRbicx2/ ... in it; missing LR images are made by
    MATLAB's bicubic where there are none. Models of scale 1, which restore images, need inputs: a folder of them, or
    --degrade.

    Ctrl-C prints and writes what is measured so far; the same command goes on where it stopped.

    imdn-kd benchmark --model IMDN_x4.pth --data Set5 Set14

    imdn-kd benchmark --model denoiser.safetensors --model input --data kodak24 --degrade noise=15 --degrade noise=50
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.config.options import read_options
    from imdn_kd.data.degradation.schema import parse_steps
    from imdn_kd.data.layouts.names import DataSource
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation import benchmark as library
    from imdn_kd.evaluation.protocol import Protocol
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.evaluation.schema import BenchmarkOptions
    from imdn_kd.evaluation.tables import check_output
    from imdn_kd.inference.weights import read_weight_file
    from imdn_kd.zoo import locate

    opt.import_own(imports)
    check_output(output)
    models = list(model or [])
    sources = [DataSource(name) for name in (*(data or []), *(more_data or []))]
    protocol = None
    spec, key = None if arch is None else opt.parse_arch(arch), None
    if options is not None:
        file = read_options(options, BenchmarkOptions)
        protocol = file.protocol()
        for note in file.notes():
            complain(note)
        sources = sources or [dataset.source(file.scale) for dataset in file.datasets.values()]
        scale = scale or file.scale
        if not models and file.path.model:
            models, key = [file.path.model], file.path.param_key_g
            spec = spec or file.network_g
            if file.network_g and key is None and read_weight_file(locate(models[0])).wrapper == "params_ema":
                complain("path.param_key_g: not given; params_ema is measured, BasicSR: params")
        if device is None and file.num_gpu == 0:
            device = "cpu"
        if save is None and (file.val.save_img or file.save_img):
            save = Path("experiments") / file.name / "visualization"

    if lr is not None and (degrade or len(sources) != 1):
        raise InputError(
            "--lr names the LR images of one data set; give one, without --degrade", code="cli.exclusive-options"
        )
    changes: list[dict[str, Any]] = [{"steps": parse_steps(text)} for text in degrade or ()] or [{}]
    changes = [each | ({} if lr is None else {"lr": lr}) | ({"grey": True} if grey else {}) for each in changes]
    sources = [replace(source, **each) for source in sources for each in changes]
    if space is not None:
        protocol = replace(protocol or Protocol(), space=space.value)
    upsamplers = library.open_upsamplers(
        models,
        scale=scale,
        arch=spec,
        key=key,
        device=device or "auto",
        precision=precision.value,
        engine=engine,
        self_ensemble=self_ensemble,
    )
    tasks = library.plan_tasks(upsamplers, sources, root=root)
    for line in dict.fromkeys(line for task in tasks for line in task.images.notes):
        complain(line)
    if save is not None:
        library.check_names(tasks)
    scorings = [library.Scoring(task, protocol=protocol, explain=explain, save=save, keep=True) for task in tasks]
    total, left = sum(len(task.images.pairs) for task in tasks), sum(scoring.left for scoring in scorings)
    if left < total:
        complain(f"going on: {total - left} of {total} images were measured before the command was stopped")
    stopped = False
    with FileProgress(total=left, quiet=quiet) as progress:
        try:
            for task, scoring in zip(tasks, scorings, strict=True):
                progress.begin(f"{task.upsampler.name}, {task.images.name}")
                for pixels in scoring:
                    progress.file_done(pixels)
        except KeyboardInterrupt:
            stopped = True
    left = sum(scoring.left for scoring in scorings)
    scores = [result for scoring in scorings if (result := scoring.result())]
    if scores:
        report = report_scores(scores, left=left)
        if output is not None:
            report.save(output)
        if as_json or not quiet:
            report.show(as_json=as_json)
    if stopped:
        how = "the same command goes on there" if all(scoring.kept for scoring in scorings) else "nothing is kept"
        complain(f"stopped, {left} of {total} images left; {how}")
        raise typer.Exit(130)
    for scoring in scorings:
        scoring.forget()
