from __future__ import annotations

import threading
import time

import pytest

from imdn_kd.utils.threads import in_order


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("ahead", [1, 4, 100])
def test_results_come_in_order(workers, ahead):
    def slow_when_even(number):
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    results = list(in_order(slow_when_even, range(20), workers=workers, ahead=ahead, name="test"))
    assert results == [number * number for number in range(20)]


def test_no_more_is_begun_than_asked_for():
    begun = []
    results = in_order(begun.append, iter(range(100)), workers=2, ahead=3, name="test")
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 3
    results.close()
    time.sleep(0.05)
    assert len(begun) <= 3


def test_errors_are_raised_in_their_place():
    def fail_at_three(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = in_order(fail_at_three, range(9), workers=2, ahead=4, name="failing")
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    for _ in range(200):
        if not any(thread.name.startswith("failing") for thread in threading.enumerate()):
            break
        time.sleep(0.05)
    assert not any(thread.name.startswith("failing") for thread in threading.enumerate())
