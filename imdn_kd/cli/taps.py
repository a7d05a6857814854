"""`imdn-kd taps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.training import check_installed


def taps(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an option of the file, e.g. network_t.weights=FILE."),
    ] = None,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Show the features of student and teacher that loss terms can compare: names, modules, shapes and ranges.

    imdn-kd taps -opt options/distill/statistics.yml
    """
    from imdn_kd.evaluation.features import report_features

    check_installed()
    from imdn_kd.training.setup.open_inputs import open_networks
    from imdn_kd.training.setup.read_file import read_train_options

    opt.import_own(imports)
    student, teachers = open_networks(read_train_options(options, overrides or ()))
    report_features(student, teachers).show(as_json=as_json)
