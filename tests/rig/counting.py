"""A monitor that counts what passes through it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from queue import SimpleQueue

from qmpsnap.monitor.base import DEFAULT_TIMEOUT_S, CommandFailed, Event, Monitor, Query


class Counting:
    """A monitor that counts commands."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.sent: list[str] = []
        """Names of all commands, in order."""
        self.refused: list[str] = []
        """Names of those that were sent together with others and that QEMU refused."""
        self._taken = 0
        self.hops = 0
        """How often somebody waited: commands that were sent together count once."""
        self.largest = 0
        """Bytes of the largest reply, as JSON; only while `weighs`."""
        self.weighs = False

    def taken(self) -> list[str]:
        """Names of the commands since the last time, in order."""
        taken, self._taken = self.sent[self._taken :], len(self.sent)
        return taken

    @property
    def trips(self) -> int:
        """Number of commands."""
        return len(self.sent)

    @property
    def events(self) -> SimpleQueue[Event]:
        """The real monitor's."""
        return self._monitor.events

    def execute(
        self,
        command: str,
        arguments: Mapping[str, object] | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
    ) -> object:
        """See `Monitor.execute`."""
        self.sent.append(command)
        self.hops += 1
        return self._weighed(self._monitor.execute(command, arguments, timeout))

    def execute_all(
        self, queries: Sequence[Query], timeout: float = DEFAULT_TIMEOUT_S
    ) -> list[object]:
        """See `Monitor.execute_all`."""
        self.sent += [command for command, _ in queries]
        self.hops += 1
        replies = self._monitor.execute_all(queries, timeout)
        self.refused += [reply.command for reply in replies if isinstance(reply, CommandFailed)]
        return [self._weighed(reply) for reply in replies]

    def _weighed(self, reply: object) -> object:
        if self.weighs and not isinstance(reply, Exception):
            self.largest = max(self.largest, len(json.dumps(reply)))
        return reply

    def close(self) -> None:
        """Close the real one."""
        self._monitor.close()
