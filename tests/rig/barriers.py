"""Threads that wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Barrier


@contextmanager
def aborted(barrier: Barrier) -> Iterator[None]:
    """Let no other thread wait for one that has failed."""
    try:
        yield
    except BaseException:
        barrier.abort()
        raise
