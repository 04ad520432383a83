"""Read something until it is as wanted; the bound is for what never will be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from tests.rig.waiting import HANG_S

T = TypeVar("T")
_FIRST_S: Final = 0.01
_LONGEST_S: Final = 0.1


def read_until(read: Callable[[], T], good: Callable[[T], bool], limit_s: float = HANG_S) -> T:
    """
    Read again and again.

    Raises:
        TimeoutError: It never was good.
    """
    deadline, pause_s = time.monotonic() + limit_s, _FIRST_S
    while not good(value := read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {value!r} after {limit_s} s")
        time.sleep(pause_s)
        # Whoever is asked has less time for what is waited for.
        pause_s = min(pause_s * 1.5, _LONGEST_S)
    return value
