"""`imdn-kd train`."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Launcher(str, Enum):
    """Values of `imdn_kd.training.launch.Launcher`, repeated here since the command line must not import it."""

    none = "none"
    pytorch = "pytorch"
    slurm = "slurm"


def train(
    options: Annotated[Path, typer.Option("-opt", "--options", metavar="FILE", help="Option file (.yml).")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Instead of what the file says, as train.optim_g.lr=1e-4."),
    ] = None,
    auto_resume: Annotated[
        bool, typer.Option("--auto_resume", "--auto-resume", help="Go on from the newest state of the run.")
    ] = False,
    launcher: Annotated[
        Launcher, typer.Option(help="Who started the processes; none: alone, accelerate launch, or torchrun.")
    ] = Launcher.none,
    root: Annotated[Path, typer.Option(help="Folder of all runs.")] = Path("experiments"),
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="MINUTES",
            help="Train for so long: a period more of CosineAnnealingRestartLR, with as many updates as fit. With "
            "--auto_resume, the next piece, or the rest of one that was stopped.",
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Say what is wrong or has no effect, and stop.")] = False,
) -> None:
    """Train a network as an option file says, in the words of BasicSR.

    Ctrl-C saves and says how to go on. Leaves a folder in --root: models, states, curves, the log.

    imdn-kd train -opt options/train/imdn_rtc_x2.yml
    """
    from imdn_kd.errors import InputError
    from imdn_kd.training.interrupt import Deadline, TimeUpError

    if minutes is not None and not 0 < minutes <= 1e6:
        raise InputError(f"--minutes is {minutes:g}; give a number above 0, and a million at most")
    deadline = None if minutes is None else Deadline(60 * minutes)
    from imdn_kd.cli.progress import TrainProgress
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.option_files import read_options

    if importlib.util.find_spec("accelerate") is None:
        raise InputError("training needs packages that are not installed; pip install 'imdn_kd[train]'")
    from imdn_kd.training import launch, run
    from imdn_kd.training.options import TrainOptions
    from imdn_kd.training.trainer import DivergedError

    with launch.processes(launcher.value):
        main = launch.rank() == 0
        content = launch.together(lambda: read_options(options, TrainOptions, overrides or ()))
        if check:
            if deadline is not None:
                content, _, _ = launch.together(lambda: run.next_piece(content, root=root, auto_resume=auto_resume))
            plan = launch.together(lambda: run.check(content, root=root, auto_resume=auto_resume))
            if main:
                print(*plan.notes, f"{options}: can be trained", sep="\n")
            return
        try:
            if deadline is not None:
                with TrainProgress(content.train.total_iter, shown=main) as progress:
                    content = run.fit(
                        content, deadline, root=root, auto_resume=auto_resume, on_teaching=progress.teaching
                    )
            with TrainProgress(content.train.total_iter, shown=main) as progress:
                trainer = run.prepare(
                    content,
                    root=root,
                    auto_resume=auto_resume,
                    deadline=deadline,
                    examined=deadline is not None,
                    on_step=progress.at,
                    on_teaching=progress.teaching,
                )
                first = trainer.step
                progress.start(first)
                outcome = trainer.run()
        except DivergedError as error:
            if main:
                print(f"imdn-kd: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except TimeUpError as error:
            if main:
                print(f"time is up before training could begin; go on with: {_again()}")
            raise typer.Exit(0) from error
        if outcome.time_up and outcome.step == first < content.train.total_iter:
            few = f"--minutes {minutes:g}: time was up before the first update; give more"
            raise InputError(*([few] if main else []))
    if not main:
        raise typer.Exit(0 if outcome.signal is None else 128 + outcome.signal)
    if outcome.time_up:
        total = content.train.total_iter
        print(f"time is up after update {outcome.step} of {total}; go on with: {_again()}")
        return
    if outcome.signal is not None:
        print(f"imdn-kd: stopped after update {outcome.step}; go on with: {_again()}", file=sys.stderr)
        raise typer.Exit(128 + outcome.signal)
    if outcome.test:
        report = report_scores(outcome.test)
        report.show(as_json=False)
        report.save(trainer.folder.path / "test.md")
    selection = " and ".join(content.val.selection) if content.val else ""
    for metric, best in outcome.best.items():
        print(f"best {metric} on {selection}: {best['value']:.4f} at {best['step']}")
    print(f"trained for {outcome.step} updates: {outcome.model}")


def _again() -> str:
    """The command that goes on."""
    if "RANK" in os.environ:
        return "the same command with --auto_resume"
    words = [word for word in sys.argv[1:] if word not in ("--auto_resume", "--auto-resume")]
    return shlex.join(["imdn-kd", *words, "--auto_resume"])
