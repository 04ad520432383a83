"""
What every guest of the rig can do, whoever runs its QEMU: a paused one, in which nothing ever runs.

Writes go through HMP `qemu-io`, which returns nothing, neither on success nor on failure: what
happened is only printed to QEMU's standard output. That output is kept in a file, and QEMU makes
it line-buffered, so the text is in the file before the command's reply arrives. A write counts as
done only when its confirmation is found there.
"""

from __future__ import annotations

import re
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from tests.rig import images
from tests.rig.export import exported
from tests.rig.writer import NbdClient, Writer, writing

_WROTE: Final = re.compile(r"^wrote (\d+)/(\d+) bytes at offset (\d+)$", re.MULTILINE)


class GuestWriteError(Exception):
    """A write of the guest did not succeed, or QEMU did not confirm it."""


class _Size(msgspec.Struct, rename="kebab"):
    virtual_size: int


class _Medium(msgspec.Struct, rename="kebab"):
    node_name: str
    image: _Size


class _Block(msgspec.Struct):
    qdev: str = ""
    inserted: _Medium | None = None


class Machine(ABC):
    """A paused QEMU with disks. All methods may be called from any thread."""

    def __init__(
        self, *, qdevs: Mapping[str, str], output: Path, scratch: Path, directory: Path
    ) -> None:
        """
        Describe a guest that runs.

        Args:
            qdevs: For each disk id, what `query-block` calls its device.
            output: File that QEMU's standard output goes to.
            scratch: Private folder with a short path and no blanks, for sockets and small files.
            directory: Folder with room for a copy of a disk.
        """
        self._qdevs = qdevs
        self._output = output
        self._scratch = scratch
        self._directory = directory
        self._io = threading.Lock()
        self._nbd = threading.Lock()

    @property
    @abstractmethod
    def running(self) -> bool:
        """Whether the QEMU process is there."""

    @abstractmethod
    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """Send one QMP command; see `Monitor.execute` for the errors."""

    def hmp(self, line: str) -> str:
        """Send one line to the human monitor and return what it answers, errors included."""
        return str(self.qmp("human-monitor-command", {"command-line": line}))

    def qemu_io(self, disk_id: str, command: str) -> str:
        """
        Let QEMU's `qemu-io` do something to a disk, and return what it printed.

        Nothing tells success from failure but that text.

        Args:
            disk_id: The disk.
            command: For example `read -P 3 0 64k`, `flush`, `discard 0 1M`. Words are split at
                blanks; nothing can be quoted.
        """
        with self._io:
            start = self._output.stat().st_size
            refused = self.hmp(f'qemu-io -d {self._qdevs[disk_id]} "{command}"')
            with self._output.open("rb") as file:
                file.seek(start)
                printed = file.read().decode(errors="replace")
        return (refused + printed).strip()

    def write(self, disk_id: str, offset: int, length: int, pattern: int) -> None:
        """
        Write `length` bytes (below 2 GiB) of value `pattern` (0 to 255) at `offset`.

        Raises:
            GuestWriteError: QEMU did not write all of it.
        """
        self._write(disk_id, offset, length, f"-P {pattern}")

    def write_bytes(self, disk_id: str, offset: int, data: bytes) -> None:
        """
        Write any bytes at `offset`, as a guest could.

        Raises:
            GuestWriteError: QEMU did not write all of it.
        """
        source = self._scratch / f"write-{uuid.uuid4().hex}"
        source.write_bytes(data)
        try:
            self._write(disk_id, offset, len(data), f"-s {source}")
        finally:
            source.unlink()

    def _write(self, disk_id: str, offset: int, length: int, what: str) -> None:
        printed = self.qemu_io(disk_id, f"write {what} {offset} {length}")
        done = _WROTE.search(printed)
        if done is None or done.groups() != (str(length), str(length), str(offset)):
            reason = printed or "QEMU did not confirm it"
            raise GuestWriteError(f"{disk_id}, {length} bytes at {offset}: {reason}")

    def virtual_size(self, disk_id: str) -> int:
        """Size in bytes of a disk as the guest sees it."""
        return self._medium(disk_id).image.virtual_size

    def active_node(self, disk_id: str) -> str:
        """Name of the node below a disk's device."""
        return self._medium(disk_id).node_name

    def read_all(self, disk_id: str) -> bytes:
        """Read the whole guest-visible content of a disk."""
        with self._copied(disk_id) as copy:
            return copy.read_bytes()

    def read_sha256(self, disk_id: str) -> str:
        """Hash the whole guest-visible content of a disk; hexadecimal, as `images.sha256_of`."""
        with self._copied(disk_id) as copy:
            return images.sha256_of_bytes(copy)

    @contextmanager
    def writer(self, disk_id: str, *, seed: int = 0, max_writes: int = 20_000) -> Iterator[Writer]:
        """
        Write to a disk in the background for as long as the context is open.

        The disk's content is read first; nobody else may write to it meanwhile, and it cannot be
        read.

        Args:
            disk_id: The disk.
            seed: Same seed, same writes.
            max_writes: The writer rests after so many; one takes about 0.2 ms.

        Raises:
            WriteFailed: On leaving the context: a write failed.
        """
        model = bytearray(self.read_all(disk_id))
        node = self.active_node(disk_id)
        with (
            self._nbd,
            exported(self.qmp, node, socket=self._scratch / "nbd", writable=True) as url,
            closing(NbdClient(url)) as client,
            writing(client.write, model, seed=seed, max_writes=max_writes) as writer,
        ):
            yield writer

    def _medium(self, disk_id: str) -> _Medium:
        blocks = msgspec.convert(self.qmp("query-block"), list[_Block])
        qdev = self._qdevs[disk_id]
        return next(one.inserted for one in blocks if one.qdev == qdev and one.inserted)

    @contextmanager
    def _copied(self, disk_id: str) -> Iterator[Path]:
        with (
            self._nbd,
            exported(self.qmp, self.active_node(disk_id), socket=self._scratch / "nbd") as url,
            images.raw_copy(url, "raw", self._directory) as copy,
        ):
            yield copy
