"""`imdn-kd upscale`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say
from imdn_kd.cli.upscale_report import KEYS, summary, told


def upscale(
    inputs: Annotated[
        list[str], typer.Argument(metavar="INPUT...", help="Image files, folders, glob patterns; or a video.")
    ],
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
    quality: Annotated[int | None, typer.Option(min=1, max=100, help="Quality of JPEG and WebP (default: 95).")] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs",
            "-j",
            min=1,
            help="Images or frames worked on at the same time (default: one for each thread of PyTorch).",
        ),
    ] = None,
    device: opt.Device = "auto",
    precision: opt.PrecisionOption = opt.Precision.auto,
    engine: opt.EngineOption = "auto",
    crop: opt.CropOption = opt.Crop.exact,
    crop_size: opt.CropSize = None,
    memory: opt.Memory = None,
    scratch: opt.Scratch = None,
    imports: opt.Imports = None,
    as_json: Annotated[
        bool, typer.Option("--json", help=f"Print a JSON object on a line for each file: {KEYS}.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Upscale images of any size and kind with a super-resolution model, or restore them with one of scale 1.

    Says of each file what was done as soon as it is: the model, what ran it, sizes, time.

    Animations become animations where the output is PNG or WebP, pages of a TIFF those of a TIFF; otherwise the first
    picture is enlarged. What an output does not hold is said at the end.

    A video keeps its sound, subtitles, timing and colours; stopped, the same command goes on with the frames that are
    left. It needs PyAV.

    A file that cannot be enlarged is reported at the end and does not stop the rest; the exit code is then 1.

    imdn-kd upscale photo.jpg -o large

    imdn-kd upscale holidays --recursive -o large --fit 3840x2160 --skip-existing
    """
    import time

    import torch

    from imdn_kd.cli import upscale_video
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.image.io import Picture
    from imdn_kd.image.video import is_video_name
    from imdn_kd.inference.batch import FileResult, Progress, run_jobs
    from imdn_kd.inference.cropping import SMALLEST_PROCESS
    from imdn_kd.inference.file_jobs import FileJob, plan_jobs
    from imdn_kd.inference.graph_file import open_model
    from imdn_kd.inference.sizes import Size, parse_size, target_size
    from imdn_kd.inference.upscaler import Upscaler

    opt.import_own(imports)
    exact = None if size is None else parse_size(size)
    box = None if fit is None else parse_size(fit)
    asked = (scale, exact, box) != (None, None, None)
    if asked:
        target_size((1, 1), scale=scale, size=exact, fit=box)  # refuses what no image could get, before the work
    is_video = any(is_video_name(text) and not Path(text).is_dir() for text in inputs)
    files = []
    if is_video:
        given = {"--format": format, "--quality": quality, "--recursive": recursive or None}
        upscale_video.check_request(inputs, [name for name, value in given.items() if value is not None])
    else:
        files = plan_jobs(inputs, output, recursive=recursive, suffix=format and f".{format.lower().lstrip('.')}")
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

    def result_size(given: Size) -> Size:
        return target_size(given, scale=scale if asked else upscaler.scale, size=exact, fit=box)

    jobs = jobs or torch.get_num_threads()
    if is_video:
        weights = None if model is None or not Path(model).is_file() else Path(model).stat()
        settings = {
            "model": [model, weights and weights.st_size, weights and weights.st_mtime_ns, spec],
            "options": [fast, self_ensemble, crop.value, precision.value],
        }
        upscale_video.upscale_file(
            Path(inputs[0]),
            output,
            upscaler,
            result_size,
            settings,
            jobs=jobs,
            skip_existing=skip_existing,
            overwrite=overwrite,
            as_json=as_json,
            quiet=quiet,
        )
        return
    results: list[FileResult] = []
    start, stopped = time.perf_counter(), False
    with FileProgress(total=len(files), quiet=quiet) as progress:

        def on_begin(job: FileJob) -> None:
            progress.begin(job.source.name)

        def enlarge(picture: Picture, on_progress: Progress) -> Picture:
            height, width = result_size((picture.height, picture.width))
            return upscaler(picture, size=(width, height), on_progress=on_progress)

        try:
            for done in run_jobs(
                files,
                enlarge,
                result_size,
                workers=jobs,
                skip_existing=skip_existing,
                overwrite=overwrite,
                quality=quality or 95,
                prepare=upscaler.networks,
                on_begin=on_begin,
                on_progress=progress.part,
            ):
                results.append(done)
                progress.file_done(done.pixels)
                if line := told(done, upscaler, as_json=as_json, quiet=quiet):
                    progress.say(line)
        except KeyboardInterrupt:
            stopped = True
    if len(files) > 1 and not (as_json or quiet):
        say(summary(results, time.perf_counter() - start))
    for done in results:
        if done.left_out:
            complain(f"{done.job.target}: does not hold {', '.join(done.left_out)}")
    failed = [done for done in results if done.status == "failed"]
    for done in failed:
        complain(done.reason)
    if stopped:
        left = len(files) - len(results)
        complain(f"stopped, {left} of {len(files)} images left; go on with --skip-existing")
        raise typer.Exit(130)
    if failed:
        raise typer.Exit(1)
