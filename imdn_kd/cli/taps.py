"""`imdn-kd taps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import say
from imdn_kd.cli.training import check_installed


def taps(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override an option of the file, e.g. network_t.weights=FILE."),
    ] = None,
    imports: opt.Imports = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            "--picture", metavar="FILE", help="Draw the features of this LR image instead: maps and affinity graphs."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Page (.html) or folder of the drawings (default: features.html)."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace drawings that are there.")] = False,
) -> None:
    """Show the features of student and teacher that loss terms can compare: names, modules, shapes and ranges.

    With --picture, draw them side by side: means and energies of the channels, and cosines between the pixels.

    imdn-kd taps -opt options/distill/statistics.yml

    imdn-kd taps -opt options/distill/statistics.yml --picture small.png -o features.html
    """
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.features import report_features

    check_installed()
    from imdn_kd.training.setup.open_inputs import open_networks
    from imdn_kd.training.setup.read_file import read_train_options

    opt.import_own(imports)
    if picture is None and (output is not None or overwrite):
        raise InputError("--output and --overwrite are for drawings; give --picture", code="cli.exclusive-options")
    if picture is not None and as_json:
        raise InputError("--json is for the table of features; leave out --picture", code="cli.exclusive-options")
    if picture is None:
        student, teachers = open_networks(read_train_options(options, overrides or ()))
        report_features(student, teachers).show(as_json=as_json)
        return
    from imdn_kd.evaluation.feature_drawings import check_target, draw_features, write_drawings
    from imdn_kd.image.rgb import read_rgb

    target = output or Path("features.html")
    check_target(target, overwrite=overwrite)
    image = read_rgb(picture)
    content = read_train_options(options, overrides or ())
    student, teachers = open_networks(content)
    drawings = draw_features(student, teachers, image)
    write_drawings(drawings, target, title=f"Features of {picture.name}", overwrite=overwrite)
    count = len({drawing.feature for drawing in drawings})
    random = (
        "" if content.path.pretrained else "; the student has random weights (path.pretrain_network_g is not given)"
    )
    say(f"{target}: {len(drawings)} drawings of {count} features{random}")
