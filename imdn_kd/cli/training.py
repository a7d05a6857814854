"""What `imdn-kd train` and `imdn-kd zoo train` share: plan a piece, train, and say how it ended."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from imdn_kd.errors import InputError

if TYPE_CHECKING:
    from imdn_kd.training.schema import TrainOptions
    from imdn_kd.training.signals import Deadline
    from imdn_kd.training.trainer import Trainer, TrainResult


@dataclass(frozen=True)
class Trained:
    """What was trained, with which options, and how it ended."""

    options: TrainOptions
    trainer: Trainer
    result: TrainResult


def deadline_in(minutes: float) -> Deadline:
    """The moment by which a piece is to end; raises InputError for a number that cannot be used."""
    from imdn_kd.training import signals as interrupt

    if not 0 < minutes <= 1e6:
        raise InputError(f"--minutes is {minutes:g}; give a number above 0, and a million at most")
    return interrupt.Deadline(60 * minutes)


def check_installed() -> None:
    """Refuse before anything else what needs the extra of training."""
    if importlib.util.find_spec("accelerate") is None:
        raise InputError("training needs packages that are not installed; pip install 'imdn_kd[train]'")


def carry_out(
    options: TrainOptions,
    *,
    root: Path,
    auto_resume: bool,
    deadline: Deadline | None,
    again: Callable[[], str],
    first: str = "",
) -> Trained:
    """Train; with a deadline, the next piece or the rest of one.

    Args:
        options: of the run.
        root: folder of all runs.
        auto_resume: resume the run from its newest state.
        deadline: when the piece is to end; None: the run is trained to its end.
        again: gives the command that resumes the run.
        first: line for the log before anything else.

    Raises:
        InputError: see `imdn_kd.training.run.fit` and `prepare`; or time was up before the first update.
        typer.Exit: it ended before training, or diverged; all is said.
    """
    import logging

    from imdn_kd.cli.progress import TrainProgress
    from imdn_kd.training import distributed as launch
    from imdn_kd.training import run
    from imdn_kd.training.signals import TimeUpError
    from imdn_kd.training.trainer import DivergedError

    main = launch.rank() == 0
    try:
        with TrainProgress(options.train.total_iter, shown=main) as progress:
            if first:
                logging.getLogger(__name__).info("%s", first)
            if deadline is not None:
                options = run.fit(options, deadline, root=root, auto_resume=auto_resume, on_teaching=progress.teaching)
        with TrainProgress(options.train.total_iter, shown=main) as progress:
            trainer = run.prepare(
                options,
                root=root,
                auto_resume=auto_resume,
                deadline=deadline,
                examined=deadline is not None,
                on_step=progress.at,
                on_teaching=progress.teaching,
            )
            begun = trainer.step
            progress.start(begun)
            result = trainer.run()
    except DivergedError as error:
        if main:
            print(f"imdn-kd: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except TimeUpError as error:
        if main:
            print(f"time is up before training could begin; go on with: {again()}")
        raise typer.Exit(0) from error
    if deadline is not None and result.time_up and result.step == begun < options.train.total_iter:
        few = f"--minutes {deadline.seconds / 60:g}: time was up before the first update; give more"
        raise InputError(*([few] if main else []))
    return Trained(options, trainer, result)


def report(trained: Trained, again: Callable[[], str]) -> None:
    """Say how training ended.

    Args:
        trained: to its end or not.
        again: see `carry_out`.

    Raises:
        typer.Exit: it was not complete, or this is not the main process.
    """
    from imdn_kd.evaluation.report import report_scores
    from imdn_kd.training import distributed as launch

    options, result = trained.options, trained.result
    if launch.rank() != 0:
        raise typer.Exit(0 if result.signal is None else 128 + result.signal)
    if result.time_up:
        print(f"time is up after update {result.step} of {options.train.total_iter}; go on with: {again()}")
        raise typer.Exit(0)
    if result.signal is not None:
        print(f"imdn-kd: stopped after update {result.step}; go on with: {again()}", file=sys.stderr)
        raise typer.Exit(128 + result.signal)
    if result.test:
        scores = report_scores(result.test)
        scores.show(as_json=False)
        scores.save(trained.trainer.folder.path / "test.md")
    selection = " and ".join(options.val.selection) if options.val else ""
    for metric, best in result.best.items():
        print(f"best {metric} on {selection}: {best['value']:.4f} at {best['step']}")
    print(f"trained for {result.step} updates: {result.model}")
