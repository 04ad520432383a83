"""
A copy of what a running QEMU reads from one of its nodes.

Through an NBD export, so tables that are still in QEMU's memory count; and nothing stays behind:
an export keeps its node in use, and would make a later `blockdev-del` fail.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from qmpsnap.demo import images
from qmpsnap.errors import Failed

GONE_TIMEOUT_S: Final = 10.0


@dataclass(eq=False)
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
def copied(qmp: Qmp, node: str, *, socket: Path, directory: Path) -> Iterator[Path]:
    """
    Copy the content of a node into a temporary raw file.

    A QEMU has one NBD server, so one copy at a time.

    Args:
        qmp: How to reach QEMU.
        node: Name of the node.
        socket: Path for the NBD server, at most 107 bytes; removed afterwards.
        directory: Where the copy is made.

    Raises:
        CommandFailed: There is no such node, or an NBD server runs already.
        ExportStuck: The export could not be removed.
        QemuImgMissing: qemu-img is not installed.
        QemuImgFailed: There is no room for the copy, or QEMU could not read.
    """
    export = f"qmpsnap-read-{uuid.uuid4().hex}"
    qmp("nbd-server-start", {"addr": {"type": "unix", "data": {"path": str(socket)}}})
    try:
        what = {"type": "nbd", "id": export, "node-name": node, "name": export}
        qmp("block-export-add", {**what, "writable": False})
        try:
            url = f"nbd+unix:///{export}?socket={quote(str(socket))}"
            with images.raw_copy(url, "raw", directory) as copy:
                yield copy
        finally:
            _remove(qmp, export)
    finally:
        qmp("nbd-server-stop")
        socket.unlink(missing_ok=True)


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
