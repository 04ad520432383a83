"""A QMP server of a few lines, on a thread, that does what a test tells it to."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from qmpsnap.monitor.socket import SocketMonitor
from tests.rig.waiting import HANG_S

GREETING: Final = {"QMP": {"version": {"qemu": {"major": 7}, "package": ""}, "capabilities": []}}


class Client:
    """The server's end of one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = ""

    def send(self, *messages: Mapping[str, object] | bytes) -> None:
        """Send lines; bytes as they are."""
        for message in messages:
            if not isinstance(message, bytes):
                message = json.dumps(message).encode() + b"\r\n"
            self._connection.sendall(message)

    def receive(self) -> dict[str, Any]:
        """Wait for one command (clients end none with a newline); empty when there is no client."""
        while True:
            with suppress(ValueError):
                command, end = json.JSONDecoder().raw_decode(self._received)
                self._received = self._received[end:]
                assert isinstance(command, dict)
                return command
            more = self._connection.recv(65536)
            if not more:
                return {}
            self._received += more.decode()

    def greet(self) -> None:
        """As QEMU does: greeting, capabilities, empty return."""
        self.send(GREETING)
        self.answer(self.receive(), {})

    def answer(self, command: Mapping[str, object], value: object) -> None:
        """Return a value for a command."""
        self.send({"return": value} | {key: command[key] for key in ("id",) if key in command})

    def refuse(self, command: Mapping[str, object], error_class: str, description: str) -> None:
        """Return an error for a command."""
        error = {"class": error_class, "desc": description}
        self.send({"error": error} | {key: command[key] for key in ("id",) if key in command})


@contextmanager
def serve(path: Path, talk: Callable[[Client], object]) -> Iterator[str]:
    """Listen at `path`, let `talk` talk to the one client that comes, then close."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            with suppress(OSError):  # nobody came, or the client left in mid-word
                connection, _ = listener.accept()
                with connection:
                    talk(Client(connection))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield str(path)
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
            thread.join(HANG_S)
            assert not thread.is_alive()


@contextmanager
def connected(path: Path, talk: Callable[[Client], object]) -> Iterator[SocketMonitor]:
    """A monitor that has greeted such a server."""

    def greet_and_talk(client: Client) -> None:
        client.greet()
        talk(client)

    with serve(path, greet_and_talk) as address:
        monitor = SocketMonitor.connect(address)
        try:
            yield monitor
        finally:
            monitor.close()
