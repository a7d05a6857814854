"""`imdn-kd init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say


def init(
    photos: Annotated[Path, typer.Argument(metavar="PHOTOS", help="Folder of your photographs.")],
    scale: Annotated[int, typer.Option("--scale", "-s", help="Factor of the enlargement.")] = 4,
    student: Annotated[
        str,
        typer.Option(
            help="Student of the zoo or model file, to train further; or a network to train from nothing: plain_t, "
            "plain_s, plain_m, imdn_rtc, ..."
        ),
    ] = "plain_s",
    teacher: Annotated[
        str,
        typer.Option(
            help="Student of the zoo, model file or any checkpoint that spandrel knows; none: train without one.",
            show_default="the best student of the zoo for the scale",
        ),
    ] = "",
    minutes: Annotated[float, typer.Option(help="About how long training may take on this machine.")] = 10,
    name: Annotated[
        str | None, typer.Option(help="Of the run and its data.", show_default="that of the folder, with the factor")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The option file.", show_default="NAME.yml")
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of all data sets.")] = Path("datasets"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an option file that is there.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write an option file that distils a student for your own photographs, and check it.

    Holds out some photographs to select weights on, packs the others as `imdn-kd prepare` does (without those that look
    like one that is held out), and sets lengths that fit the time, as measured on this machine.

    imdn-kd init photos --scale 2 --minutes 5

    imdn-kd init photos --student imdn_rtc_x4 --teacher none --name finetuned
    """
    from imdn_kd.cli import training
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.config.options import check_options
    from imdn_kd.data.preparation.job import check_inputs, open_source, write_dataset
    from imdn_kd.data.preparation.schema import PrepareOptions
    from imdn_kd.errors import InputError
    from imdn_kd.utils.files import check_folder

    training.check_installed()
    from imdn_kd.training import own_photos, run
    from imdn_kd.training.setup.read_file import read_train_options

    name = f"{photos.resolve().name}_x{scale}" if name is None else name
    request = own_photos.InitRequest(photos, name, scale, student, teacher, minutes, root)
    own_photos.check_request(request)
    output = output or Path(f"{name}.yml")
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already; choose another --name, or add --overwrite", code="file.exists")
    check_folder(output)
    given = {"source": "folder", "path": str(photos), "scale": [scale], "name": name, "output": str(request.store)}
    prepare = check_options({**given, "exclude_like": [str(request.held_out)]}, PrepareOptions, "imdn-kd init")
    count = own_photos.hold_out(request)
    check_inputs(prepare)
    try:
        with FileProgress(quiet=quiet) as progress:
            progress.begin(request.store.name)
            made = write_dataset(prepare, open_source(prepare, root=root), root=root, on_image=progress.at)
    except KeyboardInterrupt:
        complain("stopped; the same command resumes")
        raise typer.Exit(130) from None
    for reason in made.bad.values():
        complain(reason)
    content = own_photos.plan_run(request)
    model = f"experiments/{name}/models/net_g_best_psnr.safetensors"
    commands = [
        f"imdn-kd train -opt {output}",
        f"imdn-kd benchmark --model bicubic --model {model} --data {request.held_out} --scale {scale}",
        f"imdn-kd upscale PHOTO -o large --model {model}",
    ]
    heading = f"Written by imdn-kd init, for about {minutes:g} minutes on the machine where it was written.\n"
    own_photos.write_options(output, content, heading + "\n".join(commands), overwrite=overwrite)
    options = read_train_options(output, ())
    setup = run.check(options)
    if quiet:
        return
    say(f"{request.held_out}: {count} photographs held out, to select weights on")
    alike = f", without {len(made.excluded)} that look like one held out" if made.excluded else ""
    say(f"{request.store}: {made.images} photographs to train on{alike}")
    say("\n".join([*setup.warnings, *run.forecast(options, setup), f"{output}: can be trained; next:"]))
    for command in commands:
        say(f"  {command}")
