"""What a process makes once, whichever of its threads asks first."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

T = TypeVar("T")


def once(make: Callable[[], T]) -> Callable[[], T]:
    """
    Call a function once a process, and hand its result to everybody.

    `functools.cache` does not lock: of eight threads that came at once, four to eight made an
    event loop each. After an error the next caller tries again.
    """
    lock = threading.Lock()
    made: list[T] = []

    @wraps(make)
    def get() -> T:
        with lock:
            if not made:
                made.append(make())
            return made[0]

    return get
