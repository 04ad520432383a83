"""
One guest of libvirt: QMP through `virDomainQemuMonitorCommand`, for reading.

Passthrough taints the domain and can be switched off in many ways, so whoever uses this must be
ready to do with the domain XML alone (`PassthroughOff` says why).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from qmpsnap.errors import Unreachable
from qmpsnap.monitor.base import (
    CommandFailed,
    ConnectionLost,
    Event,
    LostInMidCommand,
    Query,
)
from qmpsnap.monitor.subscription import listen
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.monitor.worker import NoAnswer, Worker

_T = TypeVar("_T")

_OFF: Final = {
    "VIR_ERR_OPERATION_DENIED": "the libvirt connection is read-only",
    "VIR_ERR_ACCESS_DENIED": "libvirt's access control denies it",
    "VIR_ERR_NO_SUPPORT": "this libvirt driver has no passthrough",
}
_BROKEN: Final = ("exceeds buffer size", "nesting too deep")
"""Parts of what libvirt says of a reply that was too much for it, and from then on of each command
to the same guest: its connection to the monitor is gone for good (9.0, 11.3, 12.8)."""

PATIENCE_S: Final = 10.0
"""How long to wait for an answer. The slowest query that is ever sent took 0.3 s; a QEMU that is
stopped (SIGSTOP) never answers, and libvirt itself gives up only for the second who waits."""


class PassthroughOff(Unreachable):
    """QMP cannot be had through this libvirt connection; the XML still can."""

    msg = "no QMP through libvirt: {self.reason}"
    remedy = "The domain XML is used alone; connect with write access for exact formats."

    reason: str


class MonitorBusy(PassthroughOff):
    """
    QEMU gave no answer through libvirt in time: it is stopped, or another command is under way.

    Whoever reads can do without it, so this is no `CommandTimedOut`. It may be over soon.
    """


class GuestNotRunning(Unreachable):
    """The guest is known to libvirt and does not run, so there is no QEMU to ask."""

    msg = "the guest {self.guest!r} is not running"
    remedy = "Start it; a guest that is off has no running QEMU to read."

    guest: str


class PassthroughMonitor:
    """QMP of a libvirt guest. `domain` is a `virDomain` of an open connection."""

    def __init__(self, domain: Any) -> None:
        """Ask nothing yet."""
        self._domain = domain
        self._libvirt = libvirt_module()
        self.events: SimpleQueue[Event] = SimpleQueue()
        self._undo: list[Callable[[], None]] = []
        self._worker: Worker[object] = Worker()

    def watch(self) -> None:
        """
        Queue the guest's job events from now on.

        Raises:
            libvirtError: See `listen`.
        """
        self._undo.append(listen(self._domain, self.events))

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = PATIENCE_S,
    ) -> object:
        """
        See `Monitor.execute`.

        Raises:
            PassthroughOff: Read-only connection, access control, a driver without it, or a
                connection between libvirt and QEMU that is broken.
            MonitorBusy: No reply in time.
            GuestNotRunning: No QEMU runs for this guest.
            LibvirtMissing: `libvirt_qemu` is not installed.
        """
        (reply,) = self.execute_all([(command, arguments or {})], timeout)
        if isinstance(reply, CommandFailed):
            raise reply
        return reply

    def execute_all(self, queries: Sequence[Query], timeout: float = PATIENCE_S) -> list[object]:
        """See `Monitor.execute_all`; raises what `execute` raises."""
        monitor_command = libvirt_module("libvirt_qemu").qemuMonitorCommand
        try:
            return self._worker.run(
                [partial(self._reply, monitor_command, *query) for query in queries], timeout
            )
        except NoAnswer:
            raise _busy(timeout) from None

    def _reply(self, monitor_command: Any, command: str, arguments: Mapping[str, object]) -> object:
        # An own `id` makes libvirt answer with an error; it adds one itself.
        request = json.dumps({"execute": command, "arguments": dict(arguments)})
        try:
            answer = monitor_command(self._domain, request, 0)
        except self._libvirt.libvirtError as error:
            raise self._translated(command, error) from error
        return _unwrapped(command, answer)

    def _translated(self, command: str, error: Any) -> Exception:
        code = error.get_error_code()
        for name, reason in _OFF.items():
            if code == getattr(self._libvirt, name):
                return PassthroughOff(reason)
        if code == self._libvirt.VIR_ERR_OPERATION_TIMEOUT:
            return MonitorBusy("another command holds the guest's monitor")
        if any(words in str(error) for words in _BROKEN):
            return PassthroughOff(f"libvirt has lost the guest's monitor for good ({error})")
        if code == self._libvirt.VIR_ERR_OPERATION_INVALID:
            return GuestNotRunning(self._domain.name())
        if code == self._libvirt.VIR_ERR_NO_DOMAIN:
            return ConnectionLost(command, "the guest is gone")
        return LostInMidCommand(command, str(error))

    def close(self) -> None:
        """Stop listening. The libvirt connection stays open: it is the caller's."""
        self._worker.close()
        while self._undo:
            self._undo.pop()()


def in_time(call: Callable[[], _T], timeout: float = PATIENCE_S) -> _T:
    """
    Make a call to libvirt that needs QEMU's answer, which may never come.

    It runs on a thread of its own, which stays behind when the answer does not come.

    Raises:
        MonitorBusy: It did not come in time.
    """
    with closing(Worker[_T]()) as worker:
        try:
            (answer,) = worker.run([call], timeout)
        except NoAnswer:
            raise _busy(timeout) from None
    return answer


def _busy(timeout: float) -> MonitorBusy:
    return MonitorBusy(f"no answer from QEMU within {timeout:g} s; it is stopped, or busy")


def _unwrapped(command: str, text: str) -> object:
    """libvirt returns QMP's reply as it is, errors included, with an `id` of its own."""
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LostInMidCommand(command, f"libvirt's reply is not JSON: {error}") from error
    match reply:
        case {"return": value}:
            return value
        case {"error": {"class": str(error_class), "desc": str(description)}}:
            return CommandFailed(command, error_class, description)
        case _:
            raise LostInMidCommand(command, "libvirt's reply is neither a return nor an error")
