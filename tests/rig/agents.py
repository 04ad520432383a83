"""A guest agent that does as it is told, behind a socket as QEMU has it: for guests without a system."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rig.waiting import HANG_S

_COUNT = 2
"""Filesystems that it has."""


class ScriptedAgent:
    """Freezes and thaws; made by `scripted_agent()`."""

    def __init__(self, path: str, *, hangs: bool) -> None:
        self.path = path
        """Of the socket, for `--agent`."""
        self.frozen = False
        self.heard: list[str] = []
        """Freezes and thaws, in their order."""
        self.frozen_s = 0.0
        """How long the last freeze lasted, from its reply until the thaw was asked for."""
        self._since = 0.0
        self._may_freeze = threading.Event()
        if not hangs:
            self._may_freeze.set()

    def go_on(self) -> None:
        """End the freeze that hangs."""
        self._may_freeze.set()

    def serve(self, listener: socket.socket) -> None:
        """Answer one client after the other, until the listener is closed."""
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client, suppress(OSError):
                self._talk(client)

    def _talk(self, client: socket.socket) -> None:
        received = b""
        while data := client.recv(65536):
            received += data
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                request = json.loads(line.rpartition(b"\xff")[2])
                client.sendall(self._reply(request["execute"], request.get("arguments", {})))

    def _reply(self, command: str, arguments: dict[str, int]) -> bytes:
        value: object = {}
        match command:
            case "guest-sync-delimited":
                return b"\xff" + json.dumps({"return": arguments["id"]}).encode() + b"\n"
            case "guest-fsfreeze-status":
                value = "frozen" if self.frozen else "thawed"
            case "guest-fsfreeze-freeze":
                self._may_freeze.wait()
                self.heard.append("freeze")
                value, self.frozen, self._since = _COUNT, True, time.perf_counter()
            case "guest-fsfreeze-thaw":
                self.heard.append("thaw")
                self.frozen_s = time.perf_counter() - self._since
                value, self.frozen = _COUNT if self.frozen else 0, False
            case _:  # guest-ping
                pass
        return json.dumps({"return": value}).encode() + b"\n"


@contextmanager
def scripted_agent(folder: Path, *, hangs: bool = False) -> Iterator[ScriptedAgent]:
    """
    Serve an agent for the length of a block.

    Args:
        folder: For its socket.
        hangs: Whether a freeze waits for `go_on()`.
    """
    agent = ScriptedAgent(str(folder / "agent"), hangs=hangs)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(agent.path)
        listener.listen()
        thread = threading.Thread(target=agent.serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            agent.go_on()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(HANG_S)
