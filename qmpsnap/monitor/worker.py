"""
A thread for calls that may never return.

libvirt's call for a QMP command returns when QEMU has answered, and a QEMU that is stopped
(SIGSTOP) never does; libvirt itself gives up only for the next caller.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """A call did not return in time."""


@dataclass(eq=False, slots=True)
class _Batch(Generic[T]):
    calls: Sequence[Callable[[], T]]
    answers: SimpleQueue[tuple[T] | Exception] = field(default_factory=SimpleQueue)
    dropped: bool = False
    """Nobody waits any more: the calls that are left are not made."""

    def run(self) -> None:
        try:
            for call in self.calls:
                if self.dropped:
                    return
                self.answers.put((call(),))
        except Exception as error:  # handed to the caller's thread
            self.answers.put(error)


class Worker(Generic[T]):
    """
    One daemon thread, started by the first call and kept for later ones.

    A thread that is stuck is abandoned, and the next call starts another one.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[_Batch[T] | None] | None = None
        self._end: Callable[[], object] | None = None

    def run(self, calls: Sequence[Callable[[], T]], timeout: float) -> list[T]:
        """
        Make calls in their order, and return what they returned.

        Args:
            calls: After one that raises or does not return in time, no other is made.
            timeout: Seconds to wait for each of them.

        Raises:
            NoAnswer: One did not return in time.
            Exception: What a call raised.
        """
        batch = _Batch(calls)
        with self._lock:
            self._queue().put(batch)
        found: list[T] = []
        try:
            while len(found) < len(calls):
                answer = batch.answers.get(timeout=timeout)
                if isinstance(answer, Exception):
                    raise answer
                found.append(answer[0])
        except Empty:
            self.close()
            raise NoAnswer from None
        finally:
            batch.dropped = True
        return found

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        with self._lock:
            if self._end is not None:
                self._end()
            self._work = self._end = None

    def _queue(self) -> SimpleQueue[_Batch[T] | None]:
        if self._work is None:
            work = self._work = SimpleQueue()
            threading.Thread(target=_run, args=(work,), name="qmpsnap-worker", daemon=True).start()
            # The thread must not keep its owner, or it would never end.
            self._end = weakref.finalize(self, work.put, None)
        return self._work


def _run(work: SimpleQueue[_Batch[T] | None]) -> None:
    while (batch := work.get()) is not None:
        batch.run()
        del batch
