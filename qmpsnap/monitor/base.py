"""
What every monitor is: `execute()` and a queue of events.

Two roads lead to a QEMU: its own QMP socket (`socket.py`) and libvirt's passthrough
(`passthrough.py`). Whoever uses a monitor cannot tell which one it holds, and need not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Final, Protocol

import msgspec

from qmpsnap.errors import Failed, Unknown, Unreachable

DEFAULT_TIMEOUT_S: Final = 30.0
"""Seconds a command may take. All queries run in QEMU's main loop; the slowest one measured (32
disks of 64 layers, nested) took 3.5 s."""

WATCHED_EVENTS: Final = (
    "JOB_STATUS_CHANGE",
    "BLOCK_JOB_COMPLETED",
    "BLOCK_JOB_CANCELLED",
    "BLOCK_JOB_ERROR",
    "BLOCK_JOB_READY",
    "BLOCK_JOB_PENDING",
    "SHUTDOWN",
)
"""Only these are queued: qemu.qmp keeps every event that a listener accepts for ever."""

NAP_S: Final = 1.0
"""The longest sleep, in seconds, that a signal may have missed."""
CONNECTION_LOST: Final = "QMPSNAP_CONNECTION_LOST"
"""Name of the event that a monitor itself puts into the queue when its connection ends, so that
whoever waits for a job wakes up at once."""


Query = tuple[str, Mapping[str, object]]
"""Name of a command as in QAPI, and its arguments."""


class Event(msgspec.Struct, frozen=True):
    """One asynchronous message of QEMU, or of libvirt about the same job."""

    name: str
    data: Mapping[str, object] = msgspec.field(default_factory=dict)


class Monitor(Protocol):
    """One running QEMU, as seen through one connection."""

    @property
    def events(self) -> SimpleQueue[Event]:
        """Events in the order they arrived; only those in `WATCHED_EVENTS`."""

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """
        Send one QMP command and return what it returned.

        Args:
            command: Name as in QAPI, for example `query-block`.
            arguments: As in QAPI, keys spelled with dashes.
            timeout: Seconds to wait for the reply.

        Raises:
            CommandFailed: QEMU answered with an error; the command did nothing.
            ConnectionLost: There was no connection any more; nothing was sent.
            LostInMidCommand: The connection broke before the reply came.
            CommandTimedOut: No reply in time; it may still be carried out.
        """

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        """
        Send several QMP commands together and return what they returned, in their order.

        QEMU carries them out one after the other. Between two of them other things may happen in
        it, and one that fails does not keep it from the next.

        Args:
            queries: The commands.
            timeout: Seconds to wait for each reply.

        Returns:
            For each command its reply, or the `CommandFailed` that QEMU answered with.

        Raises:
            ConnectionLost: There was no connection any more; nothing was sent.
            LostInMidCommand: The connection broke before all replies came.
            CommandTimedOut: No reply in time.
        """

    def close(self) -> None:
        """End the connection. QEMU and its jobs go on."""


_FORBIDDEN: Final = ("Permission conflict", "Conflicts with use", "active block job")
"""How QEMU words it (block.c) when another user of a node does not share a permission, and libvirt
(qemuDomainDiskBlockJobIsActive(), qemu_domain.c) when a job is on the disk."""


class CommandFailed(Failed):
    """QEMU or libvirt answered with an error. By QMP's rules, and libvirt's, nothing was done."""

    msg = "{self.by} refused {self.command}: {self.description}"
    remedy = "Mend the cause, then give the same command again."
    changed = "no"

    command: str
    """Of QMP, or a function of libvirt's API."""
    error_class: str
    """QMP's class: `GenericError`, `CommandNotFound`, `DeviceNotFound`, …; empty under libvirt."""
    description: str
    by: str = "QEMU"

    @property
    def forbidden(self) -> bool:
        """Whether another user of a node or a disk does not let it happen, such as an NBD export."""
        return any(words in self.description for words in _FORBIDDEN)


class ConnectionLost(Unreachable):
    """The connection was gone before the command was sent."""

    msg = "the connection to the guest is gone ({self.reason}); {self.command} was not sent"
    remedy = "Check that the guest is still running, then look at it with `qmpsnap chain`."

    command: str
    reason: str


class LostInMidCommand(Unknown):
    """The connection broke between the command and its reply."""

    msg = (
        "the connection broke while {self.command} was under way ({self.reason}); "
        "whether QEMU carried it out is not known"
    )
    remedy = "Look at the guest with `qmpsnap chain`; the same command may then be given again."

    command: str
    reason: str


class CommandTimedOut(Unknown):
    """QEMU gave no reply in time. The command may still be carried out later."""

    msg = (
        "no reply to {self.command} within {self.timeout:g} s; "
        "QEMU may be busy or stopped, and may still carry it out"
    )
    remedy = "Look at the guest with `qmpsnap chain`; the same command may then be given again."

    command: str
    timeout: float


class LostWhileReading(Unreachable):
    """The guest stopped answering while it was only looked at."""

    msg = "the guest stopped answering while it was read: {self.reason}"
    remedy = "Nothing was changed. Check that the guest is still running."

    reason: str


def one_by_one(
    execute: Callable[[str, Mapping[str, object]], object], queries: Sequence[Query]
) -> list[object]:
    """Answer `Monitor.execute_all` by one `execute` for each command."""

    def reply(query: Query) -> object:
        try:
            return execute(*query)
        except CommandFailed as error:
            return error

    return [reply(query) for query in queries]


@contextmanager
def reading() -> Iterator[None]:
    """
    Mark a block that changes nothing.

    Raises:
        LostWhileReading: In the place of any `Unknown`: whether a query was carried out does not
            matter.
    """
    try:
        yield
    except Unknown as error:
        raise LostWhileReading(str(error)) from error


def stirred(events: SimpleQueue[Event], timeout: float) -> bool:
    """
    Sleep until there is an event, or the time (seconds) is over; takes all that there are.

    It sleeps in naps: a signal that comes right before a sleep begins does not end it, and Python
    sees to it only afterwards. `watch` lost one Ctrl-C of a hundred that came as it fell asleep.

    Raises:
        ConnectionLost: One of them says so.
    """
    end = time.monotonic() + timeout
    heard = False
    while True:
        left = 0.0 if heard else max(0.0, end - time.monotonic())
        try:
            name = events.get(timeout=min(NAP_S, left)).name
        except Empty:
            if left <= NAP_S:
                return heard
            continue
        if name == CONNECTION_LOST:
            raise ConnectionLost("query-jobs", "QEMU closed the connection")
        heard = True
