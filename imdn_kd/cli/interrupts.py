"""Signals that end a command as Ctrl-C does: it removes what is half-written and says what was done."""

from __future__ import annotations

import os
import signal
import stat
import threading
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType

_NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupts:
    """Makes SIGTERM and SIGHUP raise KeyboardInterrupt inside a `with` block in the main thread.

    A signal that is ignored, as SIGHUP under nohup, stays ignored.

    Attributes:
        code: exit code after such a signal, 128 + its number, as shells have it; 0: none came.
    """

    def __init__(self) -> None:
        self.code = 0
        self._caught: list[int] = []

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._caught = [number for number in _NUMBERS if signal.getsignal(number) == signal.SIG_DFL]
        for number in self._caught:
            signal.signal(number, self._raise)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in self._caught:
            signal.signal(number, signal.SIG_DFL)

    def _raise(self, number: int, frame: FrameType | None) -> None:
        for other in self._caught:  # a terminal that is closed sends several, and the first is still being answered
            signal.signal(other, signal.SIG_IGN)
        self.code = 128 + number
        _leave_closed_terminal()
        raise KeyboardInterrupt


def _leave_closed_terminal() -> None:
    """Let what is still printed to a terminal that is gone vanish, where it would fail and end the clean-up."""
    for number in (1, 2):
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            # A closed terminal no longer says that it is one, but stays a device.
            if stat.S_ISCHR(os.fstat(number).st_mode) and not os.isatty(number):
                os.dup2(nowhere.fileno(), number)
