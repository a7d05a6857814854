"""`imdn-kd verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def verify(
    stores: Annotated[list[Path], typer.Argument(metavar="STORE...", help="Stores made by imdn-kd prepare.")],
) -> None:
    """Compare every image in packed stores with its checksum.

    imdn-kd verify datasets/DIV2K.store
    """
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.data.store import Store

    found = 0
    for store in [Store(path) for path in stores]:
        total = len(store) * len(store.planes)
        with FileProgress(total) as progress:
            problems = list(store.verify(progress.at))
        for problem in problems:
            print(f"imdn-kd: {problem}; prepare the store again with --overwrite", file=sys.stderr)
        found += len(problems)
        if not problems:
            print(f"{store.path}: {len(store)} images in {len(store.planes)} planes, all intact")
    if found:
        raise typer.Exit(1)
