"""How long a guest is in use, and what ends that."""

from __future__ import annotations

import atexit
from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Final, Self


class Closable(ABC):
    """A guest that is in use until `close`, which `with` calls."""

    def close(self) -> None:
        """End what was opened for this object; QEMU and its jobs go on. Again: nothing."""
        _at_exit.discard(self)
        self._let_go()

    @abstractmethod
    def _let_go(self) -> None:
        """End what is open; may be called again."""

    def close_at_exit(self) -> Self:
        """
        Have it closed at the end of the program where nobody does so before; returns it.

        asyncio complains of every task that is still there when the interpreter ends. A finalizer
        cannot see to it: garbage may be collected on the loop's own thread, and closing waits for
        that thread.
        """
        _at_exit.add(self)
        return self

    def __enter__(self) -> Self:
        """Use the guest for the length of a block."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()


_at_exit: Final[set[Closable]] = set()


@atexit.register
def _close_all() -> None:
    for guest in [*_at_exit]:
        with suppress(Exception):  # the connection may be gone, and nobody is there to hear of it
            guest.close()
