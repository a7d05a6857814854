"""Progress bars on the error stream, with the rate and the time left."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column

from imdn_kd.cli.screen import complain, say
from imdn_kd.utils.text import PrintableFormatter, printable, printable_lines

_LINE_EVERY = 30.0
"""Seconds between lines where there is no terminal for a bar."""


_NAME = Column(no_wrap=True, overflow="ellipsis", max_width=30)


class FileProgress:
    """A bar on a terminal, with messages of the package above it; elsewhere a line now and then.

    Args:
        total: number of files; None if it becomes known later.
        level: of the messages that are shown.
        quiet: show neither bar nor lines, and of the messages warnings only.
    """

    def __init__(self, total: int | None = None, *, level: int = logging.NOTSET, quiet: bool = False) -> None:
        self._console, self._quiet = Console(stderr=True), quiet
        self._drawn = self._console.is_terminal and not quiet
        name = TextColumn("{task.description}", markup=False, table_column=_NAME)
        rate, left = TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        columns = (name, BarColumn(), TextColumn("{task.percentage:>3.0f}%"), MofNCompleteColumn(), rate, left)
        # What is printed goes to the standard output, which may be a file, and not to the console of the bar.
        self._bar = Progress(*columns, console=self._console, disable=not self._drawn, redirect_stdout=False)
        self._files = self._bar.add_task("", total=total, rate="")
        self._total, self._finished, self._pixels = total, 0, 0
        self._level = max(level, logging.WARNING) if quiet else level
        self._start = self._told = time.perf_counter()

    def __enter__(self) -> FileProgress:
        self._handler: logging.Handler = logging.StreamHandler()
        self._handler.setFormatter(PrintableFormatter("imdn-kd: %(message)s"))
        if self._console.is_terminal:
            self._handler = RichHandler(console=self._console, show_time=False, show_path=False)
            self._handler.setFormatter(PrintableFormatter())
        self._handler.setLevel(self._level)
        logging.getLogger("imdn_kd").addHandler(self._handler)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        logging.getLogger("imdn_kd").removeHandler(self._handler)

    def begin(self, name: str) -> None:
        """Say what is worked on."""
        self._bar.update(self._files, description=printable(name))

    def say(self, text: str) -> None:
        """Print a line to standard output; on a terminal, it appears above the bar."""
        if self._drawn and sys.stdout.isatty():
            self._console.print(printable_lines(text), markup=False, highlight=False, soft_wrap=True)
        else:
            say(text)

    def at(self, finished: int, total: int | None = None) -> None:
        """Say how many files are finished, and of how many if that has become known."""
        self._finished, self._total = finished, self._total if total is None else total
        self._bar.update(self._files, completed=finished, total=total)
        self._tell()

    def part(self, part: float) -> None:
        """Say how much is done of what is not finished, in files."""
        self._bar.update(self._files, completed=self._finished + part)
        self._tell(part)

    def file_done(self, pixels: int) -> None:
        """Say that a file is finished and how many px it gave."""
        self._finished, self._pixels = self._finished + 1, self._pixels + pixels
        rate = self._pixels / 1e6 / (time.perf_counter() - self._start)
        self._bar.update(self._files, completed=self._finished, rate=f"{rate:.1f} MP/s")
        self._tell()

    def _tell(self, part: float = 0.0) -> None:
        """Print how far it is, where there is no bar and the last line is long ago; `part` files are on top."""
        now, done = time.perf_counter(), self._finished + part
        if self._quiet or self._console.is_terminal or now - self._told < _LINE_EVERY:
            return
        self._told = now
        line = f"{self._finished} done"
        if self._total:
            line = f"{self._finished} of {self._total} done"
            if done:
                left = timedelta(seconds=round((now - self._start) * (self._total - done) / done))
                line += f", {left} left"
        complain(line)


class DownloadProgress:
    """A bar for each file that is downloaded, on a terminal only, and not with `quiet`."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=quiet or not console.is_terminal)

    def __enter__(self) -> DownloadProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def file(self, name: str) -> Callable[[int, int | None], None]:
        """Begin a bar; the result is called with the bytes that are there, and all of them if known."""
        task = self._bar.add_task(name, total=None)
        return lambda done, total: self._bar.update(task, completed=done, total=total)


class TrainProgress:
    """Iterations, losses, learning rate and time left of a training run; messages appear above the bar.

    Args:
        total: iterations in all; None if the clock ends the run.
        shown: whether this process is the one that speaks.
        quiet: show no bar, and of the messages warnings only.
    """

    def __init__(self, total: int | None, *, shown: bool, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
        self._bar = Progress(
            *columns, console=self._console, disable=not (shown and self._console.is_terminal and not quiet)
        )
        self._task = self._bar.add_task("", total=total, state="")
        self._total, self._told = total, (logging.WARNING if quiet else logging.INFO) if shown else logging.ERROR

    def __enter__(self) -> TrainProgress:
        self._handler: logging.Handler = (
            RichHandler(console=self._console, show_path=False, log_time_format="[%X]")
            if self._console.is_terminal
            else logging.StreamHandler()
        )
        self._handler.setFormatter(PrintableFormatter())
        self._handler.setLevel(self._told)
        self._package = logging.getLogger("imdn_kd")
        self._level = self._package.level
        self._package.setLevel(logging.INFO)
        self._package.addHandler(self._handler)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._package.removeHandler(self._handler)
        self._package.setLevel(self._level)

    def teaching(self, done: int, total: int) -> None:
        """Say for how many images the teacher's outputs are cached."""
        self._bar.update(self._task, completed=done, total=total, state="teacher outputs")

    def start(self, step: int) -> None:
        """Say how many iterations were done before, so that they do not count as speed."""
        self._bar.reset(self._task, completed=step, total=self._total, state="")
        self._first, self._start = step, time.perf_counter()

    def at(self, step: int, losses: Mapping[str, float], rate: float) -> None:
        """Say how many iterations are done, and the last losses and learning rate."""
        speed = (step - self._first) / (time.perf_counter() - self._start)
        values = " ".join(f"{name} {value:.4f}" for name, value in losses.items())
        self._bar.update(self._task, completed=step, state=f"{values} lr {rate:.2e} {speed:.1f} it/s")
