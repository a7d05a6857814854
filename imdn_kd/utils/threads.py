"""Ordered map over threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    call: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int, name: str
) -> Iterator[Result]:
    """Yield `call(item)` for each item, in the order of the items.

    An exception of a call is raised in its place. Calls not yet started when the iterator is closed are cancelled.

    Args:
        call: safe to run in several threads.
        items: iterated lazily.
        workers: threads, at least 1.
        ahead: maximum number of results in progress or waiting, at least 1.
        name: of the threads.
    """
    pool = ThreadPoolExecutor(workers, name)
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(call, item))
            if len(waiting) == ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
