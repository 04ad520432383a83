"""Read something until it is as wanted; the bound is for what never will be."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from tests.rig.waiting import HANG_S

T = TypeVar("T")
PAUSE_S: Final = 0.01
CALM_S: Final = 0.1
"""Between two questions to a service that has less time, by each, for what is waited for."""


def read_until(
    read: Callable[[], T],
    good: Callable[[T], bool],
    limit_s: float = HANG_S,
    *,
    longest_s: float = PAUSE_S,
) -> T:
    """
    Read again and again.

    Args:
        read: What is read; it may be as wanted for a moment only.
        good: Whether it is as wanted.
        limit_s: The bound.
        longest_s: Seconds to which the pauses grow. `CALM_S` for what stays as it is.

    Raises:
        TimeoutError: It never was good.
    """
    deadline, pause_s = time.monotonic() + limit_s, PAUSE_S
    while not good(value := read()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"still {value!r} after {limit_s} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, longest_s)
    return value
