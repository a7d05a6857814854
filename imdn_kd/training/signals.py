"""What ends a run early, after it has saved: Ctrl-C, SIGTERM, or a deadline."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)

TIME_UP = 1
"""Stands for the deadline among the numbers of signals; below those that are caught, which count first."""


class TimeUpError(Exception):
    """The deadline has passed before training could begin."""


class Deadline:
    """A moment by which a phase of training ends.

    Args:
        seconds: from now.
        clock: gives the time in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self.clock, self.kept = seconds, clock, 0.0
        self._end = clock() + seconds

    def earlier(self, seconds: float) -> Deadline:
        """Return the moment so many seconds before this one; its `kept` says how many there are after it."""
        other = copy.copy(self)
        other._end -= seconds
        other.kept += seconds
        return other

    @property
    def left(self) -> float:
        """Seconds until then; negative after it."""
        return self._end - self.clock()

    @property
    def passed(self) -> bool:
        """Whether time is up."""
        return self.left <= 0


class GracefulStop:
    """Catches the first signal inside a `with` block; a second one ends the process at once, as it would without.

    Outside the main thread, where signals cannot be caught, only the deadline counts.

    Args:
        deadline: ends the run as a signal does; None: there is none.
    """

    def __init__(self, deadline: Deadline | None = None) -> None:
        self._deadline = deadline
        self._received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def reason(self) -> int:
        """What ends the run: the number of the signal that came, `TIME_UP`, or 0 for nothing."""
        if self._received is not None:
            return self._received
        return TIME_UP if self._deadline is not None and self._deadline.passed else 0

    def __enter__(self) -> GracefulStop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
