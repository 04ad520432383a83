"""
Ctrl-C in an operation: what is short is finished, what takes long is left, and which is told.

It may come under any look and any act. A copy that takes hours goes on in QEMU, or, where nobody
but this call runs it, is given up. What follows the copy takes milliseconds; so the first Ctrl-C
under it is put off, and the outcome is seen. The second one ends the call at once.

Signals belong to the program: here they are `KeyboardInterrupt`, whatever made one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Patience:
    """Puts off the first Ctrl-C of an operation."""

    def __init__(self) -> None:
        """None came yet."""
        self.came = False

    def through(self, work: Callable[[], T]) -> T:
        """
        Do something that may be done twice, again when the first Ctrl-C comes under it.

        Raises:
            KeyboardInterrupt: It came before.
        """
        try:
            return work()
        except KeyboardInterrupt:
            self.put_off()
        return work()

    def put_off(self) -> None:
        """
        Take note of a Ctrl-C.

        Raises:
            KeyboardInterrupt: It is not the first.
        """
        if self.came:
            raise KeyboardInterrupt
        self.came = True

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of it when all is done."""
        return ("the interruption came when it was nearly done; it was finished",) * self.came
