"""`imdn-kd study`."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imdn_kd.cli import shared as opt
from imdn_kd.cli.screen import complain, say

if TYPE_CHECKING:
    from imdn_kd.evaluation.study.folder import RunResult
    from imdn_kd.study.plan import Run, Study

ROOT = Path("experiments/studies")


def study(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml) of a study.")],
    report: Annotated[
        bool, typer.Option("--report", help="Write the report of the runs that are complete, and train nothing.")
    ] = False,
    processes: Annotated[
        int, typer.Option(min=1, max=64, metavar="N", help="Make so many runs side by side, on a thread each.")
    ] = 1,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Instead of what the file says, as budget=500."),
    ] = None,
    root: Annotated[Path, typer.Option(help="Folder of all studies.")] = ROOT,
    check: Annotated[
        bool, typer.Option("--check", help="Open all that the arms name, list the runs, and stop.")
    ] = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare ways to train: make the runs of all arms and seeds that are missing, and report what they show.

    Ctrl-C saves; the same command goes on there, and other processes may run it at the same time. Leaves in the folder
    of the study report.md, .json and .csv, costs.md and .json, curves and crops.

    imdn-kd study -opt options/study/smoke.yml
    """
    from imdn_kd.cli import training

    training.check_installed()
    from imdn_kd.study.plan import read_study
    from imdn_kd.study.work import StoppedError, check_study, run_study

    plan = read_study(options, overrides or (), root=root)
    if report:
        _report(plan, quiet=quiet)
        return
    lines = check_study(plan)
    if check:
        say("\n".join([*lines, *_listed(plan), f"{options}: can be run"]))
        return
    for line in lines:
        complain(line)
    arguments = (options, overrides or (), root)
    try:
        with _helpers(processes - 1, arguments), _progress(plan, quiet=quiet) as (on_step, on_end):
            run_study(plan, on_step, on_end)
    except StoppedError as stopped:
        complain("stopped; the same command goes on there")
        raise typer.Exit(128 + stopped.number) from stopped
    _report(plan, quiet=quiet)


def _report(plan: Study, *, quiet: bool) -> None:
    from imdn_kd.evaluation.study.report import write_report

    written = write_report(plan.options, plan.folder)
    if quiet:
        return
    written.show(as_json=False)
    say(f"\n{plan.folder.path / 'report.md'}")


def _listed(plan: Study) -> Iterator[str]:
    seeds = ", ".join(map(str, plan.options.seeds))
    for name in plan.arms:
        about = "as many iterations as fit the time, at least" if plan.measured(name) else "iterations:"
        yield f"{name}, seeds {seeds}: {about} {plan.updates(name):,}"


@contextmanager
def _progress(
    plan: Study, *, quiet: bool
) -> Iterator[tuple[Callable[[Run, int], None], Callable[[Run, RunResult], None]]]:
    """Say how many iterations of all runs are done, also by other processes, as far as their runs are complete."""
    from imdn_kd.cli.progress import FileProgress

    def total() -> int:
        return sum(plan.updates(run.arm) for run in plan.runs())

    def complete() -> int:
        return sum(result.updates for run in plan.runs() if (result := plan.folder.result(run.name)) is not None)

    known = [complete(), total()]
    with FileProgress(known[1], level=logging.WARNING, quiet=quiet) as progress:

        def on_step(run: Run, step: int) -> None:
            progress.at(known[0] + step, known[1])

        def on_end(run: Run, result: RunResult) -> None:
            known[:] = complete(), total()
            if result.failed or not quiet:
                _tell(run, result)

        yield on_step, on_end


def _tell(run: Run, result: RunResult) -> None:
    means = (f"{name} {result.mean(name, 0):.3f} dB" for name in result.scores)
    complain(f"{run.arm}, seed {run.seed}: {result.failed or ', '.join(means)}")


@contextmanager
def _helpers(count: int, arguments: tuple[Path, tuple[str, ...] | list[str], Path]) -> Iterator[None]:
    """Let other processes make runs as well, until the block ends; interrupted, they save as this one does."""
    context = multiprocessing.get_context("spawn")
    helpers = [context.Process(target=_help, args=arguments) for _ in range(count)]
    for helper in helpers:
        helper.start()
    try:
        yield
    except BaseException:
        for helper in helpers:
            helper.terminate()
        raise
    finally:
        for helper in helpers:
            helper.join()


def _help(options: Path, overrides: list[str], root: Path) -> None:
    """What a helper does; what is wrong with the study, the first process says."""
    from contextlib import suppress

    from imdn_kd.cli.interrupts import Interrupts
    from imdn_kd.errors import InputError
    from imdn_kd.study.plan import read_study
    from imdn_kd.study.work import StoppedError, run_study

    with Interrupts(), suppress(KeyboardInterrupt, StoppedError):
        try:
            run_study(read_study(options, overrides, root=root), on_end=_tell)
        except InputError as error:
            for line in error.lines:
                complain(" ".join(line.split()))
