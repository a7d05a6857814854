"""A progress bar over files, on the error stream, with the rate and the time left."""

from __future__ import annotations

import logging
import time
from types import TracebackType

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class FileProgress:
    """Shown on a terminal only; messages of the package appear above the bar.

    Args:
        total: number of files.
    """

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        rate, left = TextColumn("{task.fields[rate]}"), TimeRemainingColumn()
        columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%"), MofNCompleteColumn(), rate, left)
        self._bar = Progress(*columns, console=self._console, disable=not self._console.is_terminal)
        self._files = self._bar.add_task("", total=total, rate="")
        self._finished, self._pixels, self._start = 0, 0, time.perf_counter()

    def __enter__(self) -> FileProgress:
        self._handler = RichHandler(console=self._console, show_time=False, show_path=False)
        logging.getLogger("imdn_kd").addHandler(self._handler)
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        logging.getLogger("imdn_kd").removeHandler(self._handler)

    def part(self, part: float) -> None:
        """Say how much of the present file is done, in [0, 1]."""
        self._bar.update(self._files, completed=self._finished + part)

    def file_done(self, pixels: int) -> None:
        """Say that a file is finished and how many px it gave."""
        self._finished, self._pixels = self._finished + 1, self._pixels + pixels
        rate = self._pixels / 1e6 / (time.perf_counter() - self._start)
        self._bar.update(self._files, completed=self._finished, rate=f"{rate:.1f} MP/s")
