"""
Waiting for what comes, however busy the machine is.

No verdict depends on how long something takes: a test waits for a condition, and the bound is only
there for one that will never be true. What must not end too soon is held by a throttle or a pause.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

HANG_S: Final = 300.0
"""Seconds after which something hangs. pytest's own limit for a test is twice that."""


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Ask again and again."""
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)  # leaves a processor to those who are waited for
