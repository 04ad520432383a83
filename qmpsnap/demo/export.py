"""
A disk of a running QEMU, read and written from outside through an NBD export.

What is read is what the guest would read, tables that are still in QEMU's memory included; what
is written takes the way of a guest's request, and waits where a guest's request waits. Nothing
stays behind: an export keeps its node in use, and would make a later `blockdev-del` fail.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from qmpsnap.demo import images
from qmpsnap.errors import Failed

GONE_TIMEOUT_S: Final = 10.0


class ExportStuck(Failed):
    """QEMU did not let go of the export through which a disk was read."""

    msg = "the export {self.export} is still there after {self.seconds:g} s"
    changed = "yes"

    export: str
    seconds: float


class Qmp(Protocol):
    """Sends one QMP command and returns what it returned."""

    def __call__(self, command: str, arguments: Mapping[str, object] | None = None) -> object: ...


class _Export(msgspec.Struct):
    id: str


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

    Raises:
        CommandFailed: There is no such node, or an NBD server runs already.
        ExportStuck: The export could not be removed.
    """
    export = f"qmpsnap-export-{uuid.uuid4().hex[:8]}"
    qmp("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(socket)}}})
    try:
        what = {"type": "nbd", "id": export, "node-name": node, "name": export}
        qmp("block-export-add", {**what, "writable": writable})
        try:
            yield f"nbd+unix:///{export}?socket={quote(str(socket))}"
        finally:
            _remove(qmp, export)
    finally:
        qmp("nbd-server-stop")
        socket.unlink(missing_ok=True)


@contextmanager
def copied(qmp: Qmp, node: str, *, socket: Path, directory: Path) -> Iterator[Path]:
    """
    Copy the content of a node into a temporary raw file below `directory`.

    Raises:
        CommandFailed, ExportStuck: See `exported`.
        QemuImgMissing: qemu-img is not installed.
        QemuImgFailed: There is no room for the copy, or QEMU could not read.
    """
    with (
        exported(qmp, node, socket=socket) as url,
        images.raw_copy(url, "raw", directory) as copy,
    ):
        yield copy


def _remove(qmp: Qmp, export: str) -> None:
    qmp("block-export-del", {"id": export, "mode": "hard"})
    deadline = time.monotonic() + GONE_TIMEOUT_S
    # The command returns before the export is gone. There is an event, but our monitors hand on
    # those of jobs only.
    while export in _exports(qmp):
        if time.monotonic() > deadline:
            raise ExportStuck(export, GONE_TIMEOUT_S)
        time.sleep(0.001)


def _exports(qmp: Qmp) -> set[str]:
    return {one.id for one in msgspec.convert(qmp("query-block-exports"), list[_Export])}
