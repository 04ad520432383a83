"""
Waiting for what comes, however busy the machine is.

No verdict depends on how long something takes: a test waits for a condition, and the bound is only
there for one that will never be true. What must not end too soon is held by a throttle or a pause.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

HANG_S: Final = 300.0
"""Seconds after which something hangs. pytest's own limit for a test is twice that."""


def until(condition: Callable[[], bool], what: str = "") -> None:
    """Ask again and again."""
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.002)  # leaves a processor to those who are waited for


def listens(path: Path) -> bool:
    """Whether somebody listens on a socket: the file is there before that."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0
