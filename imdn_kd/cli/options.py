"""`imdn-kd options`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imdn_kd.config.options import Options

options = typer.Typer(help="Show what option files may hold, and what a file comes to.", no_args_is_help=True)


class Kind(str, Enum):
    """The commands that read option files; `test` is what BasicSR calls the files of `imdn-kd benchmark`."""

    train = "train"
    test = "test"
    prepare = "prepare"
    study = "study"


KindArgument = Annotated[Kind, typer.Argument(metavar="KIND", help="Of the files: train, test, prepare or study.")]


@options.command()
def schema(kind: KindArgument = Kind.train) -> None:
    """Print the JSON schema, with which editors complete and check option files.

    imdn-kd options schema train > train.schema.json

    Editors take it from a first line `# yaml-language-server: $schema=PATH`, as seen from the option file.
    """
    import json

    from imdn_kd.config.json_schema import json_schema

    print(json.dumps(json_schema(_schema(kind)), indent=2))


@options.command()
def docs(kind: KindArgument = Kind.train) -> None:
    """Print all keys, what they may be and what they mean, as Markdown.

    imdn-kd options docs prepare
    """
    from imdn_kd.config.reference import reference

    command = "benchmark" if kind is Kind.test else kind.value
    print(f"# Option files of `imdn-kd {command}`\n\n{reference(_schema(kind))}", end="")


@options.command()
def objectives() -> None:
    """Print what `distill.objectives` may hold: every loss and loss term with its options, as Markdown.

    imdn-kd options objectives
    """
    from imdn_kd.distill.reference import loss_term_reference

    print(loss_term_reference(), end="")


@options.command()
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace an option, as train.optim_g.lr=1e-4"),
    ] = None,
) -> None:
    """Print what an option file comes to with the files of its `_base_`, as YAML.

    imdn-kd options show options/distill/pairwise.yml

    `_base_: common.yml`, or a list, inherits the options of other files, as seen from the file's own folder. Sections
    are merged key by key, later ones take precedence, and `_drop_: [KEY, ...]` in a section removes inherited keys.
    """
    from imdn_kd.config.options import merged_options
    from imdn_kd.config.yaml import dump_yaml

    print(dump_yaml(merged_options(file, overrides or ())), end="")


def _schema(kind: Kind) -> type[Options]:
    if kind is Kind.train:
        from imdn_kd.training.schema import TrainOptions

        return TrainOptions
    if kind is Kind.test:
        from imdn_kd.evaluation.schema import BenchmarkOptions

        return BenchmarkOptions
    if kind is Kind.study:
        from imdn_kd.evaluation.study.schema import StudyOptions

        return StudyOptions
    from imdn_kd.data.preparation.schema import PrepareOptions

    return PrepareOptions
