"""Requests in a line."""

import asyncio
import contextlib
import threading

import pytest

from imdn_kd.errors import InputError
from imdn_kd.serve.queue import STOPPED, WorkQueue, stopped
from tests.refused import refused


@contextlib.contextmanager
def held(queue):
    """A queue whose worker waits until the block is left."""
    gate = threading.Event()
    try:
        yield gate
    finally:
        gate.set()


def test_one_at_a_time_in_the_order_in_which_they_came():
    async def main():
        queue, done, told = WorkQueue(5), [], []
        with held(queue) as gate:
            first = asyncio.create_task(queue.do(lambda _: gate.wait(), "a"))
            await asyncio.sleep(0)
            rest = [
                asyncio.create_task(queue.do(lambda _, n=n: done.append(n), "b", lambda k, n=n: told.append((n, k))))
                for n in range(3)
            ]
            await asyncio.sleep(0)
            assert done == []
        await asyncio.gather(first, *rest)
        assert done == [0, 1, 2]
        assert [number for who, number in told if who == 2] == [3, 2, 1]

    asyncio.run(main())


def test_no_more_may_wait_than_the_limit():
    async def main():
        queue = WorkQueue(1)
        with held(queue) as gate:
            tasks = [asyncio.create_task(queue.do(lambda _: gate.wait(), n)) for n in range(2)]
            await asyncio.sleep(0)
            with refused("serve.busy"):
                queue.check_room()
            with refused("serve.busy"):
                await queue.do(lambda _: None, "late")
        await asyncio.gather(*tasks)
        queue.check_room()
        assert await queue.do(lambda _: 7, "later") == 7

    asyncio.run(main())


@pytest.mark.parametrize("owner", ["b", None])
def test_who_works_and_who_waits_can_be_stopped(owner):
    async def main():
        queue, begun = WorkQueue(5), []

        def work(stop, name):
            begun.append(name)
            assert stop.wait(60)
            raise stopped()

        tasks = {name: asyncio.create_task(queue.do(lambda stop, n=name: work(stop, n), name)) for name in "abc"}
        while not begun:
            await asyncio.sleep(0.001)
        queue.stop(owner)
        if owner is None:
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
            assert begun == ["a"]
        else:
            results = await asyncio.gather(tasks["b"], return_exceptions=True)
            assert not tasks["a"].done()
            queue.stop("a")
            while "c" not in begun:
                await asyncio.sleep(0.001)
            queue.stop()
            results += await asyncio.gather(tasks["a"], tasks["c"], return_exceptions=True)
            assert begun == ["a", "c"]
        assert [type(each) for each in results] == [InputError] * 3
        assert {each.code for each in results} == {"serve.stopped"}
        queue.check_room()

    asyncio.run(main())


def test_errors_come_to_who_asked_and_a_cancelled_one_stops_its_work():
    async def main():
        queue, begun, ended = WorkQueue(5), threading.Event(), threading.Event()

        def fail(_):
            raise InputError("no", code="some.code")

        def work(stop):
            begun.set()
            assert stop.wait(60)
            ended.set()

        with refused("some.code"):
            await queue.do(fail, "a")
        task = asyncio.create_task(queue.do(work, "a"))
        assert await asyncio.to_thread(begun.wait, 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 60)
        assert await queue.do(lambda _: 1, "b") == 1

    asyncio.run(main())


def test_once_it_is_closed_nothing_is_worked_on():
    async def main():
        queue, begun, ended = WorkQueue(5), threading.Event(), []

        def work(stop):
            begun.set()
            assert stop.wait(60)
            ended.append(True)

        asked = [asyncio.create_task(queue.do(work, "a")) for _ in range(2)]
        assert await asyncio.to_thread(begun.wait, 60)
        queue.close()
        assert ended == [True]
        first, second = await asyncio.gather(*asked, return_exceptions=True)
        assert first is None
        assert second.code == STOPPED

    asyncio.run(main())
