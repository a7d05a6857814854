"""`imdn-kd zoo`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import say

if TYPE_CHECKING:
    from imdn_kd.evaluation.tables import Report
    from imdn_kd.training.schema import TrainOptions

zoo = typer.Typer(help="Show the students that ship, train the next one, or make one of a run.", no_args_is_help=True)

Root = Annotated[Path, typer.Option("--root", help="Folder of all runs.")]
To = Annotated[
    Path | None, typer.Option("--to", metavar="FOLDER", help="Of the zoo.", show_default="that of the package")
]
Notes = Annotated[
    Path | None, typer.Option("--notes", metavar="FILE", help="Markdown on data and licences, for the model card.")
]


@zoo.command("list")
def show(
    time: Annotated[
        bool,
        typer.Option(
            "--time",
            help="Measure how long each takes here for a result of 1280x720 px, and remember it for later lists.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
    quiet: opt.Quiet = False,
) -> None:
    """List the students with their size, figures, teachers and, once measured, milliseconds on this machine.

    imdn-kd zoo list

    imdn-kd zoo list --time
    """
    if time:
        _measure_times(quiet=quiet)
    if as_json or not quiet:
        _listed().show(as_json=as_json)


def _measure_times(*, quiet: bool) -> None:
    from imdn_kd import zoo as library
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.evaluation.speed import RESULT, measure_speed
    from imdn_kd.evaluation.student_times import keep_times, key_of

    students = library.students()
    with FileProgress(len(students), quiet=quiet) as progress:
        for student in students:
            progress.begin(student.name)
            speed = measure_speed(student.name)
            keep_times({key_of(student): round(1000 * speed.seconds, 1)})
            progress.file_done(RESULT[0] * RESULT[1])


@zoo.command()
def card(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            autocompletion=opt.complete_students,
            help="Of a student, or the path of a model file of ours.",
        ),
    ],
) -> None:
    """Print the model card of a student, as Markdown.

    imdn-kd zoo card imdn_rtc_x2
    """
    from imdn_kd import zoo as library

    say(library.card(library.locate(model)).removesuffix("\n"))


@zoo.command()
def publish(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml) of the run.")],
    root: Root = Path("experiments"),
    to: To = None,
    notes: Notes = None,
    quiet: opt.Quiet = False,
) -> None:
    """Make a student of the selected weights of a run: model file and model card.

    A student of that name that is better on the sets for selection, or as good and no older, is kept.

    imdn-kd zoo publish -opt options/zoo/imdn_rtc_x2.yml
    """
    from imdn_kd.cli import training
    from imdn_kd.config.options import read_options

    training.check_installed()
    from imdn_kd.training.schema import TrainOptions

    _publish(read_options(options, TrainOptions), options, root, to, _read_notes(notes), quiet=quiet)


@zoo.command()
def train(
    minutes: Annotated[float, typer.Option(metavar="MINUTES", help="About how long to train.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Of the student. Without it: one of the line, RECIPES/line.txt, whose run is not finished, or else "
            "the one that has had the fewest iterations.",
            show_default=False,
        ),
    ] = None,
    recipes: Annotated[Path, typer.Option(metavar="FOLDER", help="Of the recipes and the line.")] = Path("options/zoo"),
    root: Root = Path("experiments"),
    to: To = None,
    notes: Notes = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Instead of what the recipe says, as num_gpu=0."),
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Train the student that is next in line for so long, and publish it.

    Resumes the run that is there, or begins one from the weights in the zoo. Killed at any moment, the same command
    resumes it, and once its decay has begun it ends with the same bytes.

    imdn-kd zoo train --minutes 50
    """
    from imdn_kd import zoo as library
    from imdn_kd.cli import training

    deadline = training.deadline_in(minutes)
    training.check_installed()
    text = _read_notes(notes)
    from imdn_kd.training import distributed as launch
    from imdn_kd.training.run import check
    from imdn_kd.training.run_folder import RunFolder
    from imdn_kd.training.zoo_line import next_student

    def again() -> str:
        return shlex.join(["imdn-kd", *sys.argv[1:]])

    with launch.processes("none"):
        student = launch.run_on_all_ranks(
            lambda: next_student(
                name, recipes=recipes, root=root, folder=to or library.FOLDER, overrides=overrides or ()
            )
        )
        run, first = RunFolder(root / student.name), student.why
        if student.outdated:
            launch.run_on_all_ranks(lambda: check(student.training, root=root))
            archived = launch.run_on_all_ranks(run.archive if launch.rank() == 0 else lambda: None)
            first += "" if archived is None else f"; the run that was there is kept as {archived.name}"
        trained = None
        if not student.trained:
            trained = training.run_training(
                student.training, root=root, auto_resume=True, deadline=deadline, again=again, first=first, quiet=quiet
            )
        elif launch.rank() == 0 and not quiet:
            print(first, file=sys.stderr)
    if trained is not None:
        training.report(trained, again, quiet=quiet)
    if launch.rank() == 0:
        _publish(student.options, student.recipe, root, to, text, quiet=quiet)


def _read_notes(path: Path | None) -> str:
    from imdn_kd.errors import InputError
    from imdn_kd.utils.text import read_text

    try:
        return "" if path is None else read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{path}: cannot read it ({reason}); give a file of Markdown", code="zoo.notes") from error


def _publish(content: TrainOptions, path: Path, root: Path, to: Path | None, notes: str, *, quiet: bool) -> None:
    """Publish a run, and say what became of it."""
    from imdn_kd import zoo as library
    from imdn_kd.cli.progress import FileProgress
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.release.publish import publish

    with FileProgress(quiet=quiet) as progress:
        made = publish(content, path, root=root, folder=to or library.FOLDER, notes=notes, on_image=progress.at)
    if quiet:
        return
    report_scores(made.scores).show(as_json=False)
    before = "" if made.before is None else f", the student that was there {made.before:.3f}"
    figures = f"the run has {made.psnr:.3f} dB on {made.data}{before}"
    say(f"{made.path}: {'published' if made.replaced else 'kept'}; {figures}")


def _listed() -> Report:
    from imdn_kd import zoo as library
    from imdn_kd.evaluation.student_times import key_of, recall_times
    from imdn_kd.evaluation.tables import Report, Table

    students = [(student, library.record(student.path)) for student in library.students()]
    times = recall_times()
    best, fastest = (library.defaults(fast=fast) if students else {} for fast in (False, True))
    sets = list(dict.fromkeys(data for _, record in students for data in record["figures"]))
    rows, entries = [], []
    for student, record in students:
        marks = {"default": best.get(student.scale) == student, "fast": fastest.get(student.scale) == student}
        teachers = [teacher["file"] for teacher in record["teachers"]]
        figures = {data: (both["psnr"], both["ssim"]) for data, both in record["figures"].items()}
        shown = (f"{figures[data][0]:.3f} / {figures[data][1]:.4f}" if data in figures else "-" for data in sets)
        used = "restoration" if student.restores else ", ".join(mark for mark, holds in marks.items() if holds)
        rows.append(
            (
                student.name,
                f"x{student.scale}",
                f"{record['parameters']:,}",
                f"{student.path.stat().st_size / 1000:.0f}",
                "-" if (ms := times.get(key_of(student))) is None else f"{ms:.0f}",
                *shown,
                ", ".join(teachers) or "-",
                used,
            )
        )
        entries.append(
            {
                **{"name": student.name, "file": str(student.path), "scale": student.scale, **marks},
                **{"restores": student.restores},
                **{"parameters": record["parameters"], "multi_adds": record["multi_adds"], "teachers": teachers},
                **{"bytes": student.path.stat().st_size, "milliseconds": ms},
                **{"figures": record["figures"], "selection": record["selection"]},
            }
        )
    note = (
        "PSNR in dB / SSIM; kB: of the file; ms: for a result of 1280x720 px on this machine, measured by --time; "
        "default and fast: what imdn-kd upscale takes without --model, and with --fast; restoration: by name only, its "
        "figures are on inputs with what it removes, see its card."
    )
    columns = ("Student", "Scale", "Params", "kB", "ms", *sets, "Teacher", "Used as")
    table = Table(
        "Students",
        columns,
        tuple(rows),
        (note,) if rows else ("No student ships with this version yet.",),
        frozenset({"Student", "Teacher", "Used as"}),
    )
    return Report((table,), {"students": entries})
