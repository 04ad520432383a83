"""A thread for calls that may never return."""

from __future__ import annotations

import gc
import threading

import pytest

from qmpsnap.monitor.worker import NoAnswer, Worker

FOREVER_S = 60.0


def test_one_thread_for_all_calls() -> None:
    worker: Worker[int] = Worker()
    first = worker.run([threading.get_ident] * 3, FOREVER_S)
    assert worker.run([threading.get_ident], FOREVER_S) * 3 == first
    assert first[0] != threading.get_ident()
    worker.close()


def test_nothing_to_do() -> None:
    assert Worker[int]().run([], FOREVER_S) == []


def test_an_error_is_raised_here_and_ends_the_rest() -> None:
    made: list[int] = []

    def fail() -> int:
        raise KeyError("domain")

    def note() -> int:
        made.append(1)
        return 7

    worker: Worker[int] = Worker()
    with pytest.raises(KeyError, match="domain"):
        worker.run([note, fail, note], FOREVER_S)
    assert worker.run([note], FOREVER_S) == [7]
    assert len(made) == 2


def test_a_thread_that_is_stuck_is_abandoned() -> None:
    answer, ended = threading.Event(), threading.Event()
    made: list[str] = []

    def stuck() -> int:
        made.append(threading.current_thread().name)
        answer.wait()
        stuck_threads.append(threading.current_thread())
        return 1

    def late() -> int:
        ended.set()
        return 2

    stuck_threads: list[threading.Thread] = []
    worker: Worker[int] = Worker()
    time_s = 0.01
    while not made:  # where the thread did not run in that time
        with pytest.raises(NoAnswer):
            worker.run([stuck, late], time_s)
        time_s *= 2
    assert worker.run([lambda: 7], FOREVER_S) == [7]
    answer.set()
    while not stuck_threads:
        threading.Event().wait(0.001)
    stuck_threads[0].join(FOREVER_S)
    assert not stuck_threads[0].is_alive()
    assert not ended.is_set(), "a call was made for which nobody waits"


def test_the_thread_ends_with_its_owner() -> None:
    worker: Worker[threading.Thread] = Worker()
    (closed,) = worker.run([threading.current_thread], FOREVER_S)
    worker.close()
    closed.join(FOREVER_S)
    (forgotten,) = worker.run([threading.current_thread], FOREVER_S)
    assert forgotten is not closed
    del worker
    gc.collect()
    forgotten.join(FOREVER_S)
    assert [closed.is_alive(), forgotten.is_alive()] == [False, False]
