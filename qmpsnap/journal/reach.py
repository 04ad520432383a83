"""The way back to the guest of an operation that was written down."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from qmpsnap.errors import Unreachable
from qmpsnap.journal.record import Entry, Record
from qmpsnap.monitor.memory import qemu_process
from qmpsnap.monitor.virt import GuestNotFound
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.where import Where

Opener = Callable[[Where], AbstractContextManager[Guest]]
"""Opens a guest, by the way to it that was written down."""


@contextmanager
def reached(entry: Entry, opener: Opener | None = None) -> Iterator[Guest | None]:
    """
    Reach the guest of an operation; None where its QEMU is certainly gone, and libvirt has none.

    Raises:
        Unreachable: It may still run.
    """
    record = entry.record
    with ExitStack() as stack:
        try:
            if opener is None and not record.where.at:
                raise NoWay(record.id, entry.named)
            guest: Guest | None = stack.enter_context((opener or _opened)(record.where))
        except Unreachable as error:
            if not _is_gone(record, error):
                raise
            guest = None
        yield guest


def _opened(where: Where) -> AbstractContextManager[Guest]:
    from qmpsnap.guests.connect import connect, connect_qmp

    if where.road == "qmp":
        return connect_qmp(where.at)
    return connect(where.at, guest=where.guest or "")


class NoWay(Unreachable):
    """
    An operation is known without the way to its guest.

    A program has used a monitor of its own, or only the marker of somebody else tells of it: that
    could name a program to run (`qemu+ext`).
    """

    msg = (
        "how the guest of operation {self.operation} is reached is not known, or not to be trusted"
    )
    remedy = (
        "Name its QMP socket, or its libvirt: `qmpsnap --qmp SOCKET resume {self.name}`, "
        "`qmpsnap --connect URI resume {self.name}`."
    )

    operation: str
    name: str
    """Its id, or the path of its marker."""


def lives(record: Record) -> bool:
    """Whether the QEMU of an operation is there."""
    process = record.where.process
    now = None if process is None else qemu_process(process[0])
    return now is not None and (now.pid, now.started) == process


def _is_gone(record: Record, error: Unreachable) -> bool:
    """Whether a guest that cannot be reached is no more; who has its files open is looked at later."""
    if record.host != platform.node():
        return False
    if lives(record):
        return False
    if isinstance(error, NoWay):
        return record.where.process is not None and record.where.road == "qmp"
    # Of a libvirt that does not answer nobody knows what its definitions say.
    return record.where.road == "qmp" or isinstance(error, GuestNotFound)
