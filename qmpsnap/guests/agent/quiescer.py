"""
Freeze and thaw through the guest agent, with the helper that thaws in an emergency.

    helper started ─► freeze ─► … ─► thaw, again until it is confirmed ─► helper released
                                     it is not: the helper goes on alone

A thaw is confirmed by its reply (the agent thaws until the kernel finds nothing frozen) and by a
look afterwards. It is not simply sent twice: each runs the guest's own hooks.

The same on both roads; they differ in the way to the agent, theirs and the helper's.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any, Final, cast

from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.agent.agent import (
    Agent,
    AgentRefused,
    AgentSilent,
    AgentSocket,
    AgentUnreachable,
    DomainAgent,
)
from qmpsnap.guests.agent.thawer import NoThawer, Thawer
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guest import Thawed
from qmpsnap.operations.quiesce import CannotFreeze, NotThawed
from qmpsnap.operations.step import Does, Step

_AGENT_ERRORS: Final = (AgentUnreachable, AgentSilent, AgentRefused)
_TRIES: Final = 4
"""One thaws; the others are for errors and a Ctrl-C on the way."""


class Quiescer(ABC):
    """Freezes one guest at a time."""

    def __init__(self) -> None:
        self._agent: Agent | None = None
        self._helper: Thawer | None = None
        self._frozen_at: float | None = None

    @abstractmethod
    def _connect(self) -> Agent:
        """The way to the agent, for this process."""

    @abstractmethod
    def _start_helper(self, seconds: float) -> Thawer:
        """The helper, and its way to the agent."""

    @abstractmethod
    def _hang_up(self) -> None:
        """Close what `_connect` opened."""

    def freeze(self, limit_s: float) -> int:
        """
        Freeze the guest's filesystems; returns how many.

        From here on they are thawed after at most twice the limit, even if this process ends.

        Raises:
            CannotFreeze: They are not frozen; or, with `asked`, may be.
        """
        try:
            self._agent = self._connect()
            self._agent.check(limit_s)
            # Now the helper: a guest without an agent should not have to wait for one.
            self._helper = self._start_helper(2 * limit_s)
        except _AGENT_ERRORS as error:
            self._hang_up()
            raise CannotFreeze(str(error)) from error
        except NoThawer as error:
            self._hang_up()
            raise CannotFreeze(str(error), advice=error.way_out) from error
        self._frozen_at = None
        try:
            count = self._agent.freeze(limit_s)
        except _AGENT_ERRORS as error:
            raise CannotFreeze(str(error), asked=True) from error
        self._frozen_at = time.monotonic()
        return count

    def thaw(self, limit_s: float) -> Thawed:
        """
        Thaw them until none is frozen. Ctrl-C comes through when that is over.

        Without a helper nothing was asked of the guest.

        Raises:
            NotThawed: It is not confirmed; a helper goes on trying.
        """
        if self._helper is None or self._agent is None:
            self._hang_up()
            return Thawed(count=0)
        count = 0
        frozen_s: float | None = None
        problem: QmpsnapError | None = None
        interrupted: KeyboardInterrupt | None = None
        for _ in range(_TRIES):
            try:
                count += self._agent.thaw(limit_s)
                if frozen_s is None and self._frozen_at is not None:
                    frozen_s = time.monotonic() - self._frozen_at
                self._agent.check(limit_s)
            except KeyboardInterrupt as error:
                interrupted = error
            except _AGENT_ERRORS as error:
                problem = error
                if not isinstance(error, AgentRefused):
                    break  # it does not answer; the helper has more time
            else:
                self._helper.release()
                self._done()
                if interrupted is not None:
                    raise interrupted
                said = str(problem) if problem else None
                return Thawed(count=count, frozen_s=frozen_s, problem=said)
        self._helper.leave()
        self._done()
        raise NotThawed(str(problem or "it was interrupted again and again"))

    def take(self, step: Step) -> int | Thawed:
        """Freeze or thaw, as a step says."""
        limit_s = cast(float, step.arguments["limit_s"])
        return self.freeze(limit_s) if step.does is Does.FREEZE else self.thaw(limit_s)

    def _done(self) -> None:
        self._hang_up()
        self._agent = self._helper = None


class SocketQuiescer(Quiescer):
    """The agent's own socket. The helper shares the connection: QEMU serves one at a time."""

    def __init__(self, path: str | None) -> None:
        """Use the socket at `path`; None when there is none."""
        super().__init__()
        self._path = path
        self._socket: AgentSocket | None = None

    def _connect(self) -> Agent:
        if self._path is None:
            raise AgentUnreachable("its socket was not given")
        self._socket = AgentSocket.connect(self._path)
        return self._socket

    def _start_helper(self, seconds: float) -> Thawer:
        assert self._socket is not None
        descriptor = self._socket.fileno()
        return Thawer(seconds, "fd", str(descriptor), keep=[descriptor])

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class DomainQuiescer(Quiescer):
    """
    libvirt's calls. The helper has a connection of its own.

    So there is no freeze under `qemu:///embed`, whose driver ends with this process.
    """

    def __init__(self, domain: Any) -> None:
        """Use a `virDomain`."""
        super().__init__()
        self._domain = domain

    def _connect(self) -> Agent:
        return DomainAgent(self._domain)

    def _hang_up(self) -> None:
        """The connection is the caller's."""

    def _start_helper(self, seconds: float) -> Thawer:
        try:
            uri, uuid = self._domain.connect().getURI(), self._domain.UUIDString()
        except libvirt_module().libvirtError as error:
            raise NoThawer(str(error)) from error
        return Thawer(seconds, "domain", uri, uuid)
