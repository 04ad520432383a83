"""
What every monitor is: `execute()` and a queue of events.

Two roads lead to a QEMU: its own QMP socket (`socket.py`) and libvirt's passthrough
(`passthrough.py`). Whoever uses a monitor cannot tell which one it holds, and need not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Final, Protocol

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

CONNECTION_LOST: Final = "QMPSNAP_CONNECTION_LOST"
"""Name of the event that a monitor itself puts into the queue when its connection ends, so that
whoever waits for a job wakes up at once."""


@dataclass(frozen=True, slots=True)
class Event:
    """One asynchronous message of QEMU, or of libvirt about the same job."""

    name: str
    data: Mapping[str, object] = field(default_factory=dict)


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

    def close(self) -> None:
        """End the connection. QEMU and its jobs go on."""


class CommandFailed(Failed):
    """QEMU answered the command with an error. By QMP's rules it did nothing."""

    msg = "QEMU refused {self.command}: {self.description}"
    changed = "no"

    command: str
    error_class: str
    """QMP's class: `GenericError`, `CommandNotFound`, `DeviceNotFound`, …"""
    description: str


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
