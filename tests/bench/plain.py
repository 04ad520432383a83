"""The least that a client of QMP can be: what a reading is measured against."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread


class Plain:
    """A blocking socket, one command at a time, and no look at what the replies say."""

    def __init__(self, path: str) -> None:
        """Connect to the monitor at `path`."""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()  # the greeting
        self.execute("qmp_capabilities")

    def execute(self, command: str, **arguments: object) -> object:
        """Send a command; returns QEMU's whole answer."""
        message = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(message).encode())
        while True:
            reply = json.loads(self._lines.readline())
            if "event" not in reply:
                return reply

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
