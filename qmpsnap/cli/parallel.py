"""
Many waits at once: a bounded number of threads, and a time limit for each.

A thread that waits for a stopped QEMU or a dead file share cannot be ended, and
`concurrent.futures` would wait for it at exit. So the threads here are daemons; one that is over
its time is left behind, and another takes its place.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TypeVar

from qmpsnap.errors import Unreachable

T = TypeVar("T")


class TooSlow(Unreachable):
    """A guest did not answer within its time limit; it held up no others."""

    msg = "no answer within {self.limit_s:g} s"
    remedy = "Check that the guest, and the share with its files, answer; or give it more time."

    limit_s: float


def in_parallel(
    tasks: Sequence[Callable[[], T]], *, threads: int, limit_s: float
) -> list[T | Exception]:
    """
    Run all tasks, and return what each one returned or raised, in their order.

    Args:
        tasks: What to do; each on a thread of its own.
        threads: How many at a time, those that are over their time not counted.
        limit_s: Seconds for one task, from its own start; then it counts as `TooSlow`.
    """
    answers: SimpleQueue[tuple[int, T | Exception]] = SimpleQueue()

    def run(number: int) -> None:
        try:
            answers.put((number, tasks[number]()))
        except Exception as error:  # handed to the caller
            answers.put((number, error))

    results: dict[int, T | Exception] = {}
    deadlines: dict[int, float] = {}
    waiting = list(range(len(tasks)))
    while waiting or deadlines:
        while waiting and len(deadlines) < threads:
            number = waiting.pop(0)
            deadlines[number] = time.monotonic() + limit_s
            threading.Thread(
                target=run, args=(number,), name=f"qmpsnap-task-{number}", daemon=True
            ).start()
        try:
            number, answer = answers.get(
                timeout=max(0.0, min(deadlines.values()) - time.monotonic())
            )
        except Empty:
            now = time.monotonic()
            for number in [one for one, deadline in deadlines.items() if deadline <= now]:
                results[number] = TooSlow(limit_s)
                del deadlines[number]
            continue
        if deadlines.pop(number, None) is not None:
            results[number] = answer
    return [results[number] for number in range(len(tasks))]
