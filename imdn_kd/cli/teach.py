"""`imdn-kd teach`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer


def teach(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Instead of what the file says, as distill.cache=true."),
    ] = None,
) -> None:
    """Write the teacher's results for all training images into their store, so that training need not ask it.

    Goes on where it was interrupted. `imdn-kd train` does the same by itself, if one process trains.

    imdn-kd teach -opt options/distill/pixelwise.yml
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.config.options import read_options
    from imdn_kd.errors import InputError

    if importlib.util.find_spec("accelerate") is None:
        raise InputError("training needs packages that are not installed; pip install 'imdn_kd[train]'")
    from imdn_kd.training import run
    from imdn_kd.training.schema import TrainOptions

    content = read_options(options, TrainOptions, overrides or ())
    setup = run.check(content)
    try:
        with FileProgress() as progress:
            run.check_teacher_quality(content, setup)
            run.fill_teacher_cache(content, setup, progress.at)
    except KeyboardInterrupt as error:
        print("imdn-kd: stopped; the same command goes on", file=sys.stderr)
        raise typer.Exit(130) from error
    assert setup.cache is not None  # noqa: S101 - otherwise it would have been refused
    print(f"{content.datasets.train.dataroot}: has {setup.cache.plane}")
