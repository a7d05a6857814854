"""What `imdn-kd train` and `imdn-kd zoo train` share: train a run, or a segment of it, and say how it ended."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imdn_kd.cli.screen import complain, say
from imdn_kd.errors import InputError
from imdn_kd.utils.extras import how_to_install

if TYPE_CHECKING:
    from imdn_kd.training.schema import TrainOptions
    from imdn_kd.training.signals import Deadline
    from imdn_kd.training.trainer import Trainer, TrainResult


@dataclass(frozen=True)
class Trained:
    """What was trained, and how it ended."""

    trainer: Trainer
    result: TrainResult


def deadline_in(minutes: float) -> Deadline:
    """The moment by which a segment is to end; raises InputError for a number that cannot be used."""
    from imdn_kd.training import signals

    if not 0 < minutes <= 1e6:
        raise InputError(
            f"--minutes is {minutes:g}; give a number above 0, and a million at most", code="train.minutes"
        )
    return signals.Deadline(60 * minutes)


def check_installed() -> None:
    """Refuse before anything else what needs the extra of training."""
    if importlib.util.find_spec("accelerate") is None:
        raise InputError(
            f"training needs packages that are not installed; {how_to_install('train')}", code="train.not-installed"
        )


def run_training(
    options: TrainOptions,
    *,
    root: Path,
    auto_resume: bool,
    deadline: Deadline | None,
    again: Callable[[], str],
    first: str = "",
    quiet: bool = False,
) -> Trained:
    """Train a run to its end; with a deadline, the next segment of it.

    Args:
        options: of the run.
        root: folder of all runs.
        auto_resume: resume the run from its newest state.
        deadline: about when the segment is to end; None: there is none.
        again: gives the command that resumes the run.
        first: line for the log before anything else.
        quiet: print warnings only.

    Raises:
        InputError: see `imdn_kd.training.run.prepare`.
        typer.Exit: it ended before training, or diverged; all is said.
    """
    import logging

    from imdn_kd.cli.progress import TrainProgress
    from imdn_kd.training import distributed as launch
    from imdn_kd.training import run
    from imdn_kd.training.signals import TimeUpError
    from imdn_kd.training.timed import train_segment
    from imdn_kd.training.trainer import DivergedError

    main, lines = launch.rank() == 0, [first] if first else []

    def train(options: TrainOptions, resume: bool, deadline: Deadline | None) -> tuple[Trainer, TrainResult]:
        total = None if options.train.is_open else options.train.total_iter
        with TrainProgress(total, shown=main, quiet=quiet) as progress:
            while lines:
                logging.getLogger(__name__).info("%s", lines.pop())
            trainer = run.prepare(
                options,
                root=root,
                auto_resume=resume,
                deadline=deadline,
                on_step=progress.at,
                on_teaching=progress.teaching,
            )
            progress.start(trainer.step)
            return trainer, trainer.run()

    try:
        if deadline is None:
            trainer, result = train(options, auto_resume, None)
        else:
            trainer, result = train_segment(options, deadline, train, root=root, auto_resume=auto_resume)
    except DivergedError as error:
        if main:
            complain(str(error))
        raise typer.Exit(1) from error
    except TimeUpError as error:
        if main:
            say(f"time is up before training could begin; resume with: {again()}")
        raise typer.Exit(0) from error
    return Trained(trainer, result)


def report(trained: Trained, again: Callable[[], str], *, quiet: bool = False) -> None:
    """Say how training ended.

    Args:
        trained: to its end or not.
        again: see `run_training`.
        quiet: print no figures; they are in the folder of the run.

    Raises:
        typer.Exit: it was not complete, or this is not the main process.
    """
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.training import distributed as launch

    options, result = trained.trainer.options, trained.result
    if launch.rank() != 0:
        raise typer.Exit(0 if result.signal is None else 128 + result.signal)
    if result.signal is not None:
        complain(f"stopped at iteration {result.step:,}; resume with: {again()}")
        raise typer.Exit(128 + result.signal)
    if result.test:
        scores = report_scores([*result.bicubic, *result.test])
        if not quiet:
            scores.show(as_json=False)
        scores.save(trained.trainer.folder.path / "test.md")
    for line in result.below_bicubic:
        complain(f"{line}; train for longer, and see the notes at the head of the log")
    if quiet:
        return
    selection = " and ".join(options.val.selection) if options.val else ""
    for metric, best in result.best.items():
        say(f"best {metric} on {selection}: {best['value']:.4f} at iteration {best['step']:,}")
    say(f"trained for {result.step:,} iterations: {result.model}")
