"""Work on several pictures at the same time: who may begin, and how many threads of the CPU each may use."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_local = threading.local()


class Room:
    """Something of which those that work side by side take parts, such as memory; who comes first is let in first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._taken: dict[object, float] = {}

    def __reduce__(self) -> tuple[type[Room], tuple[()]]:
        """A copy is another room, which is empty."""
        return Room, ()

    @property
    def users(self) -> int:
        """How many are inside."""
        return len(self._taken)

    @contextmanager
    def take(self, part: float) -> Iterator[None]:
        """Wait until `part` is free, and hold it inside the `with` block.

        Args:
            part: of the whole; from 1 on, nobody else is inside.
        """
        me, part = object(), min(part, 1.0)
        with self._changed:
            self._waiting.append(me)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is me and self._fits(part))
                self._taken[me] = part
            finally:
                self._waiting.remove(me)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                del self._taken[me]
                self._changed.notify_all()

    def _fits(self, part: float) -> bool:
        return not self._taken or sum(self._taken.values()) + part <= 1


@contextmanager
def threads_of(total: int, count: int) -> Iterator[None]:
    """Inside, PyTorch uses a part of `total` threads, where `count` pictures share them; see `all_threads`."""
    _local.total = total
    try:
        with threads(max(1, total // max(1, count))):
            yield
    finally:
        del _local.total


@contextmanager
def all_threads() -> Iterator[None]:
    """Inside `threads_of`, use all threads, for what runs alone; elsewhere nothing changes."""
    with threads(getattr(_local, "total", torch.get_num_threads())):
        yield


def has_all_threads() -> bool:
    """Whether this thread uses all threads, as it does outside `threads_of`."""
    return bool(getattr(_local, "total", torch.get_num_threads()) == torch.get_num_threads())


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, PyTorch uses so many threads for what this thread calls."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)  # of this thread and of later ones
    try:
        yield
    finally:
        torch.set_num_threads(before)
