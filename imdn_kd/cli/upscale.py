"""`imdn-kd upscale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain


def upscale(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, glob patterns.")],
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="PATH", help="Folder, or a file if there is one input.")
    ],
    model: opt.Model = None,
    arch: opt.Arch = None,
    options: Annotated[
        Path | None,
        typer.Option("-opt", "--options", metavar="FILE", help="Take network and weights from a BasicSR option file."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", "-s", help="Scale, any number from 1 (default: that of the model).")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Size of the result in px, as in 3840x2160."),
    ] = None,
    fit: Annotated[
        str | None,
        typer.Option(metavar="WxH", help="Largest size with the aspect ratio of the image inside this one."),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Without --model: the fastest student, not the best.")] = False,
    self_ensemble: opt.SelfEnsemble = False,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Go into folders inside folders.")] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out images whose output exists.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")] = False,
    format: Annotated[
        str | None, typer.Option(metavar="SUFFIX", help="Format of the outputs, e.g. png (default: as the input).")
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG and WebP.")] = 95,
    device: opt.Device = "auto",
    precision: opt.PrecisionOption = opt.Precision.auto,
    engine: opt.EngineOption = "auto",
    crop: opt.CropOption = opt.Crop.exact,
    crop_size: opt.CropSize = None,
    memory: opt.Memory = None,
    scratch: opt.Scratch = None,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a report as JSON.")] = False,
) -> None:
    """Upscale images of any size and kind with a super-resolution model, or restore them with one of scale 1.

    Animations become animations where the output is PNG or WebP, pages of a TIFF those of a TIFF; otherwise the first
    picture is enlarged. What an output does not hold is said at the end.

    A file that cannot be enlarged is reported at the end and does not stop the rest; the exit code is then 1.
    """
    import json
    from collections import Counter

    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.image.io import Picture
    from imdn_kd.inference.batch import as_report, plan_jobs, run_jobs
    from imdn_kd.inference.cropping import SMALLEST_PROCESS
    from imdn_kd.inference.graph_file import open_model
    from imdn_kd.inference.sizes import Size, target_size
    from imdn_kd.inference.upscaler import Upscaler

    opt.import_own(imports)
    exact = None if size is None else opt.parse_size(size)
    box = None if fit is None else opt.parse_size(fit)
    asked = (scale, exact, box) != (None, None, None)
    if asked:
        target_size((1, 1), scale=scale, size=exact, fit=box)  # refuses what no image could get, before the work
    jobs = plan_jobs(inputs, output, recursive=recursive, suffix=format and f".{format.lower().lstrip('.')}")
    spec, key = None if arch is None else opt.parse_arch(arch), None
    if options is not None:
        file = opt.read_network(options)
        spec = spec or file.spec
        if model is None:
            model, key = file.weights, file.key
    if spec is not None and model is None:
        raise InputError("a network without weights cannot upscale; give its file (--model)", code="cli.no-weights")
    upscaler = Upscaler(
        None if model is None else open_model(model, spec, key=key),
        device=device,
        precision=precision.value,
        engine=engine,
        crop=crop.value,
        crop_size=crop_size,
        memory=memory,
        scratch=scratch,
        self_ensemble=self_ensemble,
        fast=fast,
    )
    if memory is not None and memory < SMALLEST_PROCESS and upscaler.device.type == "cpu":
        complain("--memory: PyTorch itself takes about .8 GB on top of so little")
    results = []
    stopped = False
    with FileProgress(total=len(jobs)) as progress:

        def result_size(picture: Picture) -> Size:
            given = (picture.height, picture.width)
            return target_size(given, scale=scale if asked else upscaler.scale, size=exact, fit=box)

        def enlarge(picture: Picture) -> Picture:
            height, width = result_size(picture)
            return upscaler(picture, size=(width, height), on_progress=progress.part)

        try:
            for result in run_jobs(
                jobs, enlarge, result_size, skip_existing=skip_existing, overwrite=overwrite, quality=quality
            ):
                results.append(result)
                progress.file_done(result.width * result.height)
        except KeyboardInterrupt:
            stopped = True
    failed = [result for result in results if result.status == "failed"]
    if as_json:
        print(json.dumps(as_report(results), indent=2))
    else:
        counts = Counter(result.status for result in results)
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
    for result in results:
        if result.left_out:
            complain(f"{result.job.target}: does not hold {', '.join(result.left_out)}")
    for result in failed:
        complain(result.reason)
    if stopped:
        left = len(jobs) - len(results)
        complain(f"stopped, {left} of {len(jobs)} images left; go on with --skip-existing")
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)
