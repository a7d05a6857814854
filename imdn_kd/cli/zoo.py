"""`imdn-kd zoo`."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from imdn_kd.evaluation.tables import Report

zoo = typer.Typer(help="Show the students that ship, or make one of a run.", no_args_is_help=True)


@zoo.command("list")
def show(as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the students with their size, figures and teachers.

    imdn-kd zoo list
    """
    _listed().show(as_json=as_json)


@zoo.command()
def card(
    model: Annotated[str, typer.Argument(metavar="NAME", help="Of a student, or the path of a model file of ours.")],
) -> None:
    """Print the model card of a student, as Markdown.

    imdn-kd zoo card imdn_rtc_x2
    """
    from imdn_kd import zoo as library

    print(library.card(library.locate(model)), end="")


@zoo.command()
def publish(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml) of the run.")],
    root: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("experiments"),
    to: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Of the zoo.", show_default="that of the package"),
    ] = None,
    notes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Markdown on data and licences, for the model card.")
    ] = None,
) -> None:
    """Make a student of the selected weights of a run: model file, model card, and the state to go on from.

    A student of that name that is better on the set for selection, or as good and no older, is kept.

    imdn-kd zoo publish -opt options/zoo/imdn_rtc_x2.yml
    """
    from imdn_kd import zoo as library
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.errors import InputError
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.option_files import read_options

    if importlib.util.find_spec("accelerate") is None:
        raise InputError("training needs packages that are not installed; pip install 'imdn_kd[train]'")
    from imdn_kd.training.options import TrainOptions
    from imdn_kd.training.publish import publish as make

    content = read_options(options, TrainOptions)
    try:
        text = "" if notes is None else notes.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{notes}: cannot read it ({reason}); give a file of Markdown") from error
    with FileProgress() as progress:
        made = make(content, options, root=root, folder=to or library.FOLDER, notes=text, on_image=progress.at)
    report_scores(made.scores).show(as_json=False)
    before = "" if made.before is None else f", the student that was there {made.before:.3f}"
    figures = f"the run has {made.psnr:.3f} dB on {made.data}{before}"
    print(f"{made.path}: {'published' if made.replaced else 'kept'}; {figures}")


def _listed() -> Report:
    from imdn_kd import zoo as library
    from imdn_kd.evaluation.tables import Report, Table

    students = [(student, library.record(student.path)) for student in library.students()]
    best, fastest = (library.defaults(fast=fast) if students else {} for fast in (False, True))
    sets = list(dict.fromkeys(data for _, record in students for data in record["figures"]))
    rows, entries = [], []
    for student, record in students:
        marks = {"default": best[student.scale] == student, "fast": fastest.get(student.scale) == student}
        teachers = [teacher["file"] for teacher in record["teachers"]]
        figures = {data: (both["psnr"], both["ssim"]) for data, both in record["figures"].items()}
        shown = (f"{figures[data][0]:.3f} / {figures[data][1]:.4f}" if data in figures else "-" for data in sets)
        used = ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append(
            (
                student.name,
                f"x{student.scale}",
                f"{record['parameters']:,}",
                *shown,
                ", ".join(teachers) or "-",
                used,
            )
        )
        entries.append(
            {
                **{"name": student.name, "file": str(student.path), "scale": student.scale, **marks},
                **{"parameters": record["parameters"], "multi_adds": record["multi_adds"], "teachers": teachers},
                **{"figures": record["figures"], "selection": record["selection"]},
            }
        )
    note = "PSNR in dB / SSIM; default and fast: what imdn-kd upscale takes without --model, and with --fast."
    columns = ("Student", "Scale", "Params", *sets, "Teacher", "Used as")
    table = Table(
        "Students",
        columns,
        tuple(rows),
        (note,) if rows else ("No student ships with this version yet.",),
        frozenset({"Student", "Teacher", "Used as"}),
    )
    return Report((table,), {"students": entries})
