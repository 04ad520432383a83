"""Hold the chain of a guest that is off for the length of a block; a running QEMU holds its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations.step import Door, Step


@contextmanager
def held(door: Door, hold: Sequence[Step], release: Step | None) -> Iterator[None]:
    """
    Take `hold`, and `release` at the end of the block, however it ends.

    Raises:
        Refused: It cannot be held; nothing is left open.
    """
    try:
        for step in hold:
            door.take(step)
        yield
    except BaseException:
        if release is not None:
            with suppress(QmpsnapError):  # the first error is the one to tell
                door.take(release)
        raise
    if release is not None:
        door.take(release)
