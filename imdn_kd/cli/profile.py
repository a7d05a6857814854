"""`imdn-kd profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt


def profile(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            autocompletion=opt.complete_students,
            help="Name of a student, or a model file; can be given several times, as --arch can.",
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            "--arch", "-a", metavar="TYPE", help="Network without weights: imdn_s, or 'EDSR: {num_feat: 64}'."
        ),
    ] = None,
    options: Annotated[
        Path | None,
        typer.Option("-opt", "--options", metavar="FILE", help="Add the network of a BasicSR option file."),
    ] = None,
    scale: Annotated[
        int | None, typer.Option("--scale", "-s", min=1, help="Scale of the networks of --arch (default: their own).")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH", help="Size of the result in px; can be given several times.", show_default="1280x720"
        ),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the input in px, instead of --size.")
    ] = None,
    runs: Annotated[int, typer.Option(min=0, help="Number of timed runs; 0 to count only.")] = 10,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="as PyTorch is set")] = None,
    device: opt.Device = "auto",
    precision: opt.PrecisionOption = opt.Precision.fp32,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a report: .md or .json.")
    ] = None,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Profile models: parameters, multi-adds, activations, time and memory.

    imdn-kd profile --arch imdn --arch imdn_s --scale 4 --size 1280x720
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation import profile as library
    from imdn_kd.evaluation.report import report_profiles
    from imdn_kd.evaluation.tables import check_output
    from imdn_kd.inference.model_file import load_model
    from imdn_kd.inference.model_names import names_of
    from imdn_kd.inference.sizes import parse_size

    opt.import_own(imports)
    check_output(output)
    if size and input_size:
        raise InputError("--size and --input-size exclude each other; give one of them", code="cli.exclusive-options")
    names = model or []
    networks = {shown: load_model(name).network for name, shown in zip(names, names_of(names), strict=True)}
    networks.update({text: library.build_arch(opt.parse_arch(text), scale) for text in arch or []})
    if options is not None:
        networks[options.stem] = library.build_arch(opt.read_network(options).spec, scale)
    sizes = [parse_size(text) for text in size or ["1280x720"]]
    cases = len(networks) * (1 if input_size else len(sizes))
    with FileProgress(total=cases * (runs + 2) if runs else 0, quiet=quiet) as progress:
        profiles = library.profile(
            networks,
            output_sizes=sizes,
            input_size=parse_size(input_size) if input_size else None,
            device=device,
            precision=precision.value,
            runs=runs,
            threads=threads,
            on_run=lambda: progress.file_done(0),
        )
    report = report_profiles(profiles)
    if as_json or not quiet:
        report.show(as_json=as_json)
    if output is not None:
        report.save(output)
