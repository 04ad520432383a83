"""Read something until it is as wanted; the bound is for what never will be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.rig.waiting import HANG_S

T = TypeVar("T")


def read_until(read: Callable[[], T], good: Callable[[T], bool], limit_s: float = HANG_S) -> T:
    """
    Read again and again.

    Raises:
        TimeoutError: It never was good.
    """
    deadline = time.monotonic() + limit_s
    while not good(value := read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {value!r} after {limit_s} s")
        time.sleep(0.01)
    return value
