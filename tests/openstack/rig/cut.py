"""
A connection to libvirtd that is cut in the middle of a call.

It stands between nova-compute and libvirtd: a socket that passes on what comes. Once armed, it cuts the
connection at the next call of one kind: before libvirtd has heard of it, or when it is carried out and
the answer is on its way. Later connections are passed on as before.

Source: libvirt's src/rpc/virnetprotocol.x (a message is its length, then program, version and
procedure, 32 bits each) and src/remote/remote_protocol.x (numbers of procedures).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

SNAPSHOT_CREATE_XML: Final = 185
"""REMOTE_PROC_DOMAIN_SNAPSHOT_CREATE_XML."""
_HEAD: Final = struct.Struct(">4I")


class Cut:
    """The socket in between; see above."""

    def __init__(self, path: Path, libvirtd: Path) -> None:
        """Listen at `path`, and pass on to `libvirtd`."""
        self._libvirtd = str(libvirtd)
        self._armed: tuple[int, Callable[[], object] | None] | None = None
        self.times = 0
        """How often it has cut."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def before(self, procedure: int) -> None:
        """Cut at the next call, and let libvirtd hear nothing of it."""
        self._armed = (procedure, None)

    def after(self, procedure: int, is_done: Callable[[], object]) -> None:
        """Cut at the next call, when libvirtd has it, and `is_done` has returned."""
        self._armed = (procedure, is_done)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._libvirtd)
                muted = threading.Event()
                for work in (self._calls, self._answers):
                    threading.Thread(target=work, args=(client, server, muted), daemon=True).start()

    def _calls(self, client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with suppress(OSError):
            while message := _message(client):
                procedure = _HEAD.unpack_from(message)[3]
                if self._armed is not None and self._armed[0] == procedure:
                    is_done, self._armed = self._armed[1], None
                    if is_done is not None:
                        muted.set()
                        server.sendall(message)
                        is_done()
                    self.times += 1
                    break
                server.sendall(message)
        _end(client, server)

    @staticmethod
    def _answers(client: socket.socket, server: socket.socket, muted: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if not muted.is_set():
                    client.sendall(data)
        _end(client, server)


def _message(client: socket.socket) -> bytes:
    """One whole message; empty when the other end has gone."""
    head = _exactly(client, 4)
    if len(head) < 4:
        return b""
    return head + _exactly(client, struct.unpack(">I", head)[0] - 4)


def _exactly(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def _end(*ends: socket.socket) -> None:
    for one in ends:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
