"""The least that a client of QMP can be: what a reading or an operation is measured against."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any


class Plain:
    """A blocking socket, one command at a time, and no look at what the replies say."""

    def __init__(self, path: str) -> None:
        """Connect to the monitor at `path`."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # the greeting
        self._events: deque[Any] = deque()
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> Any:
        """Send a command, its arguments with `_` for `-`; returns QEMU's whole answer."""
        spelled = {name.replace("_", "-"): value for name, value in arguments.items()}
        message = {"execute": command, "arguments": spelled}
        self._socket.sendall(json.dumps(message).encode())
        while True:
            reply = json.loads(self._lines.readline())
            if "event" not in reply:
                return reply
            self._events.append(reply)

    def wait(self, event: str, job: str) -> None:
        """Wait for an event of a job; others are dropped."""
        while True:
            one = self._events.popleft() if self._events else json.loads(self._lines.readline())
            if one["event"] == event and one["data"].get("device") == job:
                return

    def close(self) -> None:
        """End the connection."""
        self._lines.close()
        self._socket.close()


class Waits:
    """How long somebody else waits for QEMU, who asks it for next to nothing all the time."""

    def __init__(self, path: str) -> None:
        """Ask through the monitor at `path`."""
        self._path = path
        self.longest_s = 0.0

    @contextmanager
    def during(self) -> Iterator[None]:
        """Find the longest wait in the length of a block."""
        begun, ended = Event(), Event()

        def ask() -> None:
            client = Plain(self._path)
            self.longest_s = 0.0
            while not ended.is_set():
                before = time.perf_counter()
                client.execute("query-name")
                if begun.is_set():
                    self.longest_s = max(self.longest_s, time.perf_counter() - before)
                begun.set()
            client.close()

        thread = Thread(target=ask)
        thread.start()
        begun.wait()
        try:
            yield
        finally:
            ended.set()
            thread.join()
