"""
The guest agent: three questions that matter to a snapshot, over its own socket or through libvirt.

qemu.qmp cannot speak to it: the reply to `guest-sync-delimited` begins with a byte that is no JSON,
and so does what a dead client may have left in the channel. It is one line out and one line in, so
this is plain blocking I/O with a deadline.

Source: qga/qapi-schema.json (guest-sync-delimited, guest-fsfreeze-*), qga/commands-posix.c.
"""

from __future__ import annotations

import json
import math
import secrets
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from qmpsnap.errors import Failed, Unknown, Unreachable
from qmpsnap.monitor.virt import libvirt_module

DELIMITER: Final = b"\xff"
LINE_LIMIT: Final = 1024 * 1024
"""Bytes of a reply; the longest one that is asked for has a few dozen. The guest writes it."""


class Agent(Protocol):
    """The guest agent of one guest. Each call takes at most `timeout` seconds."""

    def check(self, timeout: float) -> None:
        """
        See that the agent answers, and that nothing is frozen.

        Raises:
            AgentUnreachable, AgentSilent, AgentRefused: It does not, or something is.
        """

    def freeze(self, timeout: float) -> int:
        """
        Freeze all filesystems; returns how many.

        Raises:
            AgentSilent: No reply in time; it may still freeze later.
            AgentUnreachable, AgentRefused: It did not freeze.
        """

    def thaw(self, timeout: float) -> int:
        """
        Thaw all filesystems; returns how many were frozen.

        Raises:
            AgentSilent, AgentUnreachable, AgentRefused: It may not have thawed.
        """


class AgentUnreachable(Unreachable):
    """There is no way to the guest agent."""

    msg = "the guest agent cannot be reached: {self.reason}"
    remedy = (
        "Give QEMU a virtserialport named org.qemu.guest_agent.0, and its socket by `--agent`; "
        "under libvirt, give the guest a channel of that name."
    )

    reason: str


class AgentSilent(Unknown):
    """The guest agent did not reply in time. It may still do what it was asked."""

    msg = "the guest agent did not answer: {self.reason}"
    remedy = (
        "Check that qemu-guest-agent runs in the guest, and that nobody else holds its channel."
    )

    reason: str


class AgentRefused(Failed):
    """The guest agent answered with an error."""

    msg = "the guest agent answered with an error: {self.reason}"
    remedy = "See qemu-guest-agent's log in the guest."
    changed = "unknown"

    reason: str


class AgentSocket:
    """The host's end of the agent's channel: a UNIX socket that QEMU listens on."""

    def __init__(self, connected: socket.socket) -> None:
        """Use a connected socket; see `connect`."""
        self._socket = connected
        self._received = b""

    @classmethod
    def connect(cls, path: str) -> AgentSocket:
        """
        Connect to the socket at `path`.

        Raises:
            AgentUnreachable: Nobody listens there, or it may not be opened.
        """
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.settimeout(5)
            connected.connect(path)
        except (OSError, ValueError) as error:
            connected.close()
            raise AgentUnreachable(f"{path}: {error}") from error
        return cls(connected)

    def fileno(self) -> int:
        """The descriptor, for a helper process to share."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up; the agent goes on."""
        self._socket.close()

    def check(self, timeout: float) -> None:
        """See `Agent.check`."""
        status = self.ask("guest-fsfreeze-status", timeout)
        if status != "thawed":
            raise AgentRefused(f"its filesystems are {status} already, by somebody else")

    def freeze(self, timeout: float) -> int:
        """
        See `Agent.freeze`.

        Nothing is sent before the agent has answered: a request that waits in the channel would
        freeze the guest whenever its agent starts, with nobody there to thaw it.
        """
        deadline = time.monotonic() + timeout
        self.ask("guest-ping", timeout)
        return _count(self.ask("guest-fsfreeze-freeze", deadline - time.monotonic()))

    def thaw(self, timeout: float) -> int:
        """
        See `Agent.thaw`.

        Sent without waiting for anything: behind a freeze that is late, the agent finds it as
        soon as that one is over, even when nobody listens any more.
        """
        return _count(self.ask("guest-fsfreeze-thaw", timeout))

    def ask(
        self, command: str, timeout: float, arguments: Mapping[str, object] | None = None
    ) -> object:
        """
        Send a command behind a new synchronisation, and skip all replies to earlier ones.

        Raises:
            AgentSilent: No reply in time; it may still be carried out.
            AgentUnreachable: QEMU hung up.
            AgentRefused: The agent answered with an error.
        """
        deadline = time.monotonic() + timeout
        token = secrets.randbits(31)
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": token}}
        request = {"execute": command, "arguments": dict(arguments or {})}
        lines = (json.dumps(one).encode() + b"\n" for one in (sync, request))
        try:
            self._socket.settimeout(max(timeout, 0.001))
            self._socket.sendall(DELIMITER + b"".join(lines))
            while self._reply(deadline, delimited=True) != {"return": token}:
                pass
            reply = self._reply(deadline)
        except TimeoutError:
            raise AgentSilent(f"no reply to {command} within {timeout:g} s") from None
        except OSError as error:
            raise AgentUnreachable(f"its channel broke during {command}: {error}") from error
        match reply:
            case {"return": value}:
                return value
            case {"error": {"desc": str(reason)}}:
                raise AgentRefused(reason)
            case _:
                raise AgentRefused(f"its reply to {command} is neither a return nor an error")

    def _reply(self, deadline: float, *, delimited: bool = False) -> Mapping[str, object]:
        """The next line as JSON; {} for what is none. Delimited: only what follows a delimiter."""
        line = self._line(deadline)
        before, found, after = line.rpartition(DELIMITER)
        if delimited and not found:
            return {}
        with suppress(ValueError, RecursionError):
            value = json.loads(after if found else before + after)
            if isinstance(value, dict):
                return value
        return {}

    def _line(self, deadline: float) -> bytes:
        while b"\n" not in self._received:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("QEMU closed it")
            self._received += data
            if len(self._received) > LINE_LIMIT:
                raise ConnectionResetError("a reply without an end")
        line, _, self._received = self._received.partition(b"\n")
        return line


class DomainAgent:
    """The agent of a guest of libvirt, by libvirt's own calls: they taint nothing."""

    def __init__(self, domain: Any) -> None:
        """Use a `virDomain`."""
        self._domain = domain
        self._libvirt = libvirt_module()

    def check(self, timeout: float) -> None:
        """
        See `Agent.check`: with frozen filesystems the agent refuses to tell the time.

        libvirt has no call for the status, and `fsThaw()` would end somebody else's freeze.
        """
        self._call("getTime", timeout)

    def freeze(self, timeout: float) -> int:
        """See `Agent.freeze`."""
        return _count(self._call("fsFreeze", timeout))

    def thaw(self, timeout: float) -> int:
        """See `Agent.thaw`."""
        return _count(self._call("fsThaw", timeout))

    def _call(self, name: str, timeout: float) -> object:
        """
        Call with a limit.

        By default libvirt waits for the agent without one. Its limit is kept with the domain, for
        all callers, and cannot be read; so the default is set again afterwards.
        """
        libvirt = self._libvirt
        try:
            self._domain.agentSetResponseTimeout(max(1, math.ceil(timeout)), 0)
            try:
                return getattr(self._domain, name)()
            finally:
                forever = libvirt.VIR_DOMAIN_AGENT_RESPONSE_TIMEOUT_BLOCK
                self._domain.agentSetResponseTimeout(forever, 0)
        except libvirt.libvirtError as error:
            code = error.get_error_code()
            if code in (libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED):
                raise AgentSilent(str(error)) from error
            if code == libvirt.VIR_ERR_INTERNAL_ERROR and "agent command" in str(error):
                raise AgentRefused(str(error)) from error
            raise AgentUnreachable(str(error)) from error


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise AgentRefused(f"it counts {value!r} filesystems")
