"""`imdn-kd cache-teacher`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say
from imdn_kd.cli.training import check_installed


def cache_teacher(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an option of the file, e.g. distill.cache=true."),
    ] = None,
    imports: opt.Imports = None,
    quiet: opt.Quiet = False,
) -> None:
    """Cache the teacher's outputs and features for all training images in their store: training need not run it.

    Degraded versions of the images (datasets.train.degradation_versions) are made first. Resumes where it was
    interrupted. `imdn-kd train` does the same by itself if a single process trains.

    imdn-kd cache-teacher -opt options/distill/pixelwise.yml
    """
    from imdn_kd.cli.progress import FileProgress

    check_installed()
    from imdn_kd.training import run
    from imdn_kd.training.setup.read_file import read_train_options

    opt.import_own(imports)
    content = read_train_options(options, overrides or ())
    setup = run.check(content)
    try:
        with FileProgress(quiet=quiet) as progress:
            run.check_teacher_quality(content, setup)
            run.fill_teacher_cache(content, setup, progress.at)
    except KeyboardInterrupt as error:
        complain("stopped; the same command resumes")
        raise typer.Exit(130) from error
    if quiet:
        return
    planes = [*(setup.versions.planes if setup.versions else ()), *(setup.cache.planes if setup.cache else ())]
    say(f"{content.datasets.train.dataroot}: has {', '.join(planes)}")
