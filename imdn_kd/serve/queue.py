"""Requests, worked on one at a time in the order in which they came."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from imdn_kd.errors import InputError

T = TypeVar("T")

STOPPED = "serve.stopped"


@dataclass(eq=False)
class _Entry:
    """A request: who asked, and who is told how many others come before it."""

    owner: Hashable
    on_wait: Callable[[int], None]
    stopped: threading.Event = field(default_factory=threading.Event)
    future: Future[Any] | None = None


class WorkQueue:
    """Does work in a thread of its own; used from one event loop.

    Args:
        longest: how many may wait while another one is worked on.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._entries: list[_Entry] = []
        self._pool = ThreadPoolExecutor(1, "serve")  # one: networks use all cores themselves

    def check_room(self) -> None:
        """Refuse another request if too many wait; raises InputError."""
        if len(self._entries) > self._longest:
            raise InputError(
                f"the server is busy, and {self._longest} requests wait already; try again in a minute",
                code="serve.busy",
            )

    async def do(
        self,
        work: Callable[[threading.Event], T],
        owner: Hashable,
        on_wait: Callable[[int], None] = lambda _: None,
    ) -> T:
        """Wait for the others and return what `work` returns.

        Args:
            work: called in the thread; it ends with an InputError of code `STOPPED` soon after its argument is set.
            owner: who asked; see `stop`.
            on_wait: called with the number of requests that come before this one, whenever it changes.

        Raises:
            InputError: `serve.busy`, or `serve.stopped`, or what `work` raises.
        """
        self.check_room()
        entry = _Entry(owner, on_wait)
        self._entries.append(entry)
        entry.future = self._pool.submit(contextvars.copy_context().run, work, entry.stopped)
        if len(self._entries) > 1:
            on_wait(len(self._entries) - 1)
        try:
            return await asyncio.wrap_future(entry.future)
        except asyncio.CancelledError:
            if entry.stopped.is_set():
                raise stopped() from None
            raise
        finally:
            entry.stopped.set()
            self._entries.remove(entry)
            for number, other in enumerate(self._entries[1:], 1):
                other.on_wait(number)

    def stop(self, owner: Hashable | None = None) -> None:
        """Stop the requests of an owner, or all."""
        # Those that wait first: the next one would begin as soon as the one that is worked on ends.
        for entry in [each for each in reversed(self._entries) if owner is None or each.owner == owner]:
            entry.stopped.set()
            if entry.future is not None:
                entry.future.cancel()

    def close(self) -> None:
        """Stop all and wait until nothing is worked on any more."""
        self.stop()
        self._pool.shutdown(cancel_futures=True)


def stopped() -> InputError:
    """What stopped work ends with."""
    return InputError("stopped", code=STOPPED)
