"""A monitor that counts what passes through it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from queue import SimpleQueue

from qmpsnap.monitor.base import DEFAULT_TIMEOUT_S, Event, Monitor


class Counting:
    """A monitor that counts commands."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.trips = 0
        self.largest = 0
        """Bytes of the largest reply, as JSON; only while `weighs`."""
        self.weighs = False

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
        self.trips += 1
        reply = self._monitor.execute(command, arguments, timeout)
        if self.weighs:
            self.largest = max(self.largest, len(json.dumps(reply)))
        return reply

    def close(self) -> None:
        """Close the real one."""
        self._monitor.close()
