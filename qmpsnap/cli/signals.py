"""
SIGINT, SIGTERM and SIGHUP: one way for all three, as Ctrl-C is in Python (`KeyboardInterrupt`).

While a command only looks, one comes through at once. While a command changes something, it comes
through in the calls to the guest alone, where the operation expects it; one that comes elsewhere is
noted, and comes through in the next call. So what was done is always told, exactly once, and there
is no moment at which it could be lost: after the last call nothing comes through any more.

The handlers belong to the command line; a program that uses the library has its own.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar

T = TypeVar("T")

ALL: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Door:
    """Whether a signal comes through, and whether one waits."""

    def __init__(self) -> None:
        self.is_open = True
        self.noted = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        self.noted = True
        self.let_through()

    def let_through(self) -> None:
        if self.noted and self.is_open:
            # Before it is raised: the block that had opened the door may not get to shut it.
            self.noted = self.is_open = False
            raise KeyboardInterrupt

    def through(self, work: Callable[[], T]) -> T:
        before = self.is_open
        try:
            self.is_open = True
            self.let_through()
            return work()
        finally:
            self.is_open = before


_door = _Door()


def install() -> None:
    """
    Take the three signals from here on; none comes through before `let_through`.

    What was ignored (`nohup`, a background job of a shell) stays so.
    """
    _door.is_open = False
    for number in ALL:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _door.handle)


def let_through(work: Callable[[], T]) -> T:
    """
    Do something in which a signal may come through at any moment.

    Raises:
        KeyboardInterrupt: One did.
    """
    return _door.through(work)
