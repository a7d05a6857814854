"""`imdn-kd verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say


def verify(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores made by imdn-kd prepare.")],
    quiet: opt.Quiet = False,
) -> None:
    """Compare every image in packed stores with its checksum.

    imdn-kd verify datasets/DIV2K.store
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.data.store import Store

    found = 0
    for store in [Store(path) for path in stores]:
        total = len(store) * len(store.planes)
        with FileProgress(total, quiet=quiet) as progress:
            problems = list(store.verify(progress.at))
        for problem in problems:
            complain(f"{problem}; prepare the store again with --overwrite")
        found += len(problems)
        if not (problems or quiet):
            say(f"{store.path}: {len(store)} images in {len(store.planes)} planes, all intact")
    if found:
        raise typer.Exit(1)
