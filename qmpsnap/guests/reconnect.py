"""Connect again after a connection was lost, for a bounded time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

from qmpsnap.errors import Unreachable

PAUSE_S: Final = 0.1

T = TypeVar("T")


def connect_again(connect: Callable[[], T], seconds: float) -> T | None:
    """Call `connect` until it succeeds; None when it has not for so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return connect()
        except Unreachable:
            if time.monotonic() + PAUSE_S > deadline:
                return None
        time.sleep(PAUSE_S)
