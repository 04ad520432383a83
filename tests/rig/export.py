"""
A disk of a running QEMU, read and written from outside through an NBD export.

What is read is what the guest would read, tables that are still in QEMU's memory included; what
is written takes the way of a guest's request, and waits where a guest's request waits. Nothing
stays behind: an export keeps its node in use, and would make a later `blockdev-del` fail.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import quote


class Qmp(Protocol):
    """Sends one QMP command and returns what it returned."""

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None) -> object: ...


@contextmanager
def exported(qmp: Qmp, node: str, *, socket: Path, writable: bool = False) -> Iterator[str]:
    """
    Export a node over NBD for as long as the context is open; gives the URL.

    A QEMU has one NBD server, so one export at a time. It moves along when the device's root
    changes: after a snapshot it is the overlay that is written to.

    Args:
        qmp: How to reach QEMU.
        node: Name of the node.
        socket: Path for the NBD server, at most 107 bytes; removed afterwards.
        writable: Whether the client may write.
    """
    qmp("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(socket)}}})
    try:
        what = {"type": "nbd", "id": "of-the-rig", "node-name": node, "name": "disk"}
        qmp("block-export-add", {**what, "writable": writable})
        yield f"nbd+unix:///disk?socket={quote(str(socket))}"
    finally:
        qmp("nbd-server-stop")  # waits for the export's end (blk_exp_close_all_type)
        socket.unlink(missing_ok=True)
