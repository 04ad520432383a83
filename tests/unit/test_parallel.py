"""Many waits at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from qmpsnap.cli.parallel import TooSlow, in_parallel

NEVER = 60.0


def raising(error: Exception) -> Callable[[], int]:
    def task() -> int:
        raise error

    return task


def test_results_are_in_the_order_of_the_tasks() -> None:
    first_may_go = threading.Event()

    def first() -> str:
        assert first_may_go.wait(NEVER)
        return "first"

    def second() -> str:
        first_may_go.set()
        return "second"

    assert in_parallel([first, second], threads=2, limit_s=NEVER) == ["first", "second"]


def test_an_error_is_a_result() -> None:
    error = ValueError("no")
    assert in_parallel([raising(error), lambda: 2], threads=1, limit_s=NEVER) == [error, 2]


def test_no_more_threads_than_asked_for() -> None:
    lock, inside, most = threading.Lock(), 0, 0
    others = threading.Barrier(3)

    def task() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        others.wait(NEVER)  # goes on when three are inside
        with lock:
            inside -= 1

    assert in_parallel([task] * 9, threads=3, limit_s=NEVER) == [None] * 9
    assert most == 3


def test_one_that_is_stuck_does_not_hold_up_the_others() -> None:
    release = threading.Event()
    try:
        stuck, *others = in_parallel(
            [lambda: release.wait(NEVER), *[lambda: True] * 5], threads=1, limit_s=2
        )
        assert isinstance(stuck, TooSlow)
        assert stuck.exit_code == 7
        assert others == [True] * 5
    finally:
        release.set()


def test_a_late_answer_is_not_taken_for_another_task() -> None:
    release, released = threading.Event(), threading.Event()

    def late() -> str:
        release.wait(NEVER)
        return "late"

    def next_() -> str:
        release.set()
        released.wait(0.05)
        return "next"

    late_answer, next_answer = in_parallel([late, next_], threads=1, limit_s=2)
    assert isinstance(late_answer, TooSlow)
    assert next_answer == "next"


def test_nothing_to_do() -> None:
    empty: list[Callable[[], int]] = []
    assert in_parallel(empty, threads=1, limit_s=NEVER) == []
