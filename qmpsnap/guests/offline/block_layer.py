"""
QEMU's block layer without a guest: a QEMU with no machine and a chain open, by QMP.

It takes the same locks as a QEMU with a guest: while it has the active file open for writing, a
guest that somebody starts meanwhile ends with "Failed to get write lock". Every node is given with
its driver; nothing is opened because a header says so.

Not qemu-storage-daemon: it has no way to flush a node while a job holds it (no human monitor).
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from qmpsnap.errors import Refused
from qmpsnap.guests import children
from qmpsnap.guests.files.identity import is_device
from qmpsnap.monitor.socket import SocketMonitor

PROGRAM: Final = "qemu-system-x86_64"
OPEN_TIMEOUT_S: Final = 60.0
"""A program that cannot open the chain ends, so only a host that is very busy takes long."""


class QemuMissing(Refused):
    """There is no QEMU that could work on the disks of a guest that is off."""

    msg = "{self.program} is not installed, or cannot be run"
    remedy = "On Debian: `apt-get install qemu-system-x86`."

    program: str


class CannotOpen(Refused):
    """The chain cannot be opened as it is said to be, or somebody else has it open."""

    msg = "the chain of {self.file} cannot be opened: {self.reason}"
    remedy = "Nothing was changed. {self.advice}"

    file: str
    reason: str

    @property
    def advice(self) -> str:
        """By the cause: QEMU takes locks on files, and none on block devices."""
        if " lock" in self.reason:
            return (
                "The guest has just been started, or another program uses the file: give the same "
                "command again when that has ended."
            )
        return "Mend the cause, then give the same command again."


@contextmanager
def opened(layers: Sequence[tuple[str, str]]) -> Iterator[SocketMonitor]:
    """
    Open a chain for the length of a block, as a guest's device would.

    The process ends with the block, and with this process, however that ends: a job then stops
    where it is, and the chain is as it was before the job.

    Args:
        layers: (host file, format) in chain order.

    Yields:
        A monitor. The nodes are `layer-N` and `layer-N-file`, the active one being `layer-0`.

    Raises:
        QemuMissing: There is no such program.
        CannotOpen: A file cannot be opened in its format, or is locked.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        raise QemuMissing(PROGRAM)
    with _folder() as folder:
        path = f"{folder}/qmp"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen(1)
            number = listening.fileno()
            command = [
                # -S: nothing is started, so nothing is said of it before the greeting (RESUME).
                *(program, "-M", "none", "-S", "-nodefaults", "-no-user-config"),
                *("-display", "none"),
                # wait=on: a client that comes while the monitor is set up is served by two threads
                # for a moment, which loses bytes (7.2: once in some 500 starts, under load).
                *("-chardev", f"socket,id=qmp,fd={number},server=on,wait=on"),
                *("-mon", "chardev=qmp,mode=control"),
                *(part for node in _nodes(layers) for part in ("-blockdev", json.dumps(node))),
            ]
            said = Path(folder, "stderr")
            with said.open("wb") as errors:
                process = children.start(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=(number,),
                )
        try:
            monitor = _connected(process, path, said, layers[0][0])
            try:
                _hold(monitor, f"{folder}/nbd")
                yield monitor
            finally:
                monitor.close()
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _folder() -> Iterator[str]:
    """
    Make a folder for the length of a block.

    Not a TemporaryDirectory: where a program ends without `close`, that one is removed before the
    chain is let go, and warns.
    """
    folder = tempfile.mkdtemp(prefix="qmpsnap-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _hold(monitor: SocketMonitor, path: str) -> None:
    """
    Export the active layer to nobody.

    A node that no device or export uses is not locked when it is raw, and a job cannot pivot it.
    """
    address = {"type": "unix", "data": {"path": path}}
    monitor.execute("nbd-server-start", {"addr": address})
    export = {"type": "nbd", "id": "held", "node-name": "layer-0", "writable": True}
    monitor.execute("block-export-add", export)


def _connected(process: subprocess.Popen[bytes], path: str, said: Path, file: str) -> SocketMonitor:
    """It opens the nodes before it answers, so what cannot be opened shows as an end."""
    try:
        return SocketMonitor.connect(path, OPEN_TIMEOUT_S)
    except Refused as error:
        process.kill()
        process.wait()
        lines = said.read_text(errors="replace").splitlines()
        told = [line for line in lines if "info: QEMU waiting for connection" not in line]
        raise CannotOpen(file, "\n".join(told).strip() or str(error)) from error


def _nodes(layers: Sequence[tuple[str, str]]) -> Iterator[dict[str, object]]:
    """`-blockdev` objects, lower layers first; the active one is open for writing."""
    for position in reversed(range(len(layers))):
        path, format_ = layers[position]
        lower = position > 0
        yield {
            "driver": "host_device" if is_device(path) else "file",
            "node-name": f"layer-{position}-file",
            "filename": path,
            "auto-read-only": True,
        }
        over: dict[str, object] = {
            "driver": format_,
            "node-name": f"layer-{position}",
            "file": f"layer-{position}-file",
            "read-only": lower,
        }
        if format_ != "raw":
            over["backing"] = f"layer-{position + 1}" if position + 1 < len(layers) else None
        yield over
