"""The memory that this process takes at most during some work."""

from __future__ import annotations

import threading
from types import TracebackType

import psutil

_EVERY = 0.02  # seconds


class PeakResident:
    """Inside a `with` block, watches the resident memory of this process.

    Attributes:
        bytes: the most that was seen.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._process, self._over = psutil.Process(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakResident:
        self._look()
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        self.bytes = max(self.bytes, self._process.memory_info().rss)
