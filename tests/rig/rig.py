"""One guest with one disk, and the tool pointed at it: the same for both roads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    redirect_stderr,
    redirect_stdout,
)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qmpsnap.cli.main import run
from qmpsnap.formats.layers import Disk
from qmpsnap.formats.verdict import Verdict
from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.header import read_header
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import create
from tests.rig.disks import DiskSpec
from tests.rig.machine import Machine
from tests.rig.writer import Nobody, Writer

MIB = 1024 * 1024
SIZE = 4 * MIB
DISK = "vda"
SERIAL = "1234"
BASE = f"volume-{SERIAL}"


@dataclass(frozen=True)
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as JSON."""
        return json.loads(self.out)

    @property
    def status(self) -> Any:
        """The one line on stdout as the inner part of a status body."""
        lines = self.out.splitlines()
        assert len(lines) == 1, self
        return json.loads(lines[0])["os-update_snapshot_status"]


def run_cli(arguments: list[str]) -> Said:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(arguments)
    return Said(code, out.getvalue(), err.getvalue())


@dataclass
class Rig:
    """A running guest whose disk `vda` (serial 1234) has `volume-1234` in `folder` as its base."""

    guest: Machine
    folder: Path
    road: list[str]
    """Global options of the command line."""
    names: list[str]
    """The GUEST argument, where there is one."""
    connect: Callable[[], AbstractContextManager[Guest]]
    """A fresh connection."""
    kill: Callable[[], None]
    """SIGKILL for QEMU."""

    @contextmanager
    def host(self) -> Iterator[Guest]:
        """A host for the length of a block."""
        with self.connect() as host:
            yield host

    def cli(self, command: str, *arguments: str) -> Said:
        """Run the command line in this process."""
        return run_cli([*self.road, *command.split(), *self.names, *arguments])

    def cli_without_guest(self, command: str, *arguments: str) -> Said:
        """The same of a command that names no guest."""
        return run_cli([command, *arguments])

    def disk(self) -> Disk:
        """The disk, read afresh."""
        with self.host() as host:
            return host.read().disks[0]

    def files(self) -> list[str]:
        """Bare names of the chain, active layer first."""
        return [layer.file for layer in self.disk().layers]

    def create(self, snapshot: str) -> Said:
        """Take a snapshot with Nova's arguments; must succeed."""
        info = {"type": "qcow2", "new_file": f"{BASE}.{snapshot}", "snapshot_id": snapshot}
        said = self.cli("volume-snapshot-create", SERIAL, json.dumps(info))
        assert said.code == 0, said
        return said

    def delete(self, file_to_merge: str | None, target: str | None, *options: str) -> Said:
        """Delete a snapshot with Nova's arguments."""
        info = {"type": "qcow2", "file_to_merge": file_to_merge, "merge_target_file": target}
        return self.cli("volume-snapshot-delete", SERIAL, "some-id", json.dumps(info), *options)

    def grow(self, depth: int) -> None:
        """
        Snapshots until the chain has `depth` layers; the guest writes something in each.

        Over one connection, because most of what a command takes is the making of one.
        """
        with self.host() as host:
            for number in range(1, depth + 1):
                self.fill_layer(number)
                if number < depth:
                    name = f"s{number}"
                    create(host, CreateRequest(disk=DISK, new_file=f"{BASE}.{name}", snapshot=name))

    def grow_to(self, depth: int) -> list[str]:
        """Snapshots, by names that are new, until the chain has `depth` layers; returns its files."""
        files = self.files()
        taken = len(list(self.folder.glob(f"{BASE}*")))
        with self.host() as host:
            for number in range(taken, taken + depth - len(files)):
                name = f"s{number}"
                create(host, CreateRequest(disk=DISK, new_file=f"{BASE}.{name}", snapshot=name))
                self.fill_layer(number)
        return self.files()

    @contextmanager
    def writer(self, seed: int) -> Iterator[Writer | Nobody]:
        """Write all the time, where libvirt can be told to let somebody write beside the guest (8.2)."""
        with ExitStack() as stack:
            try:
                writer: Writer | Nobody = stack.enter_context(self.guest.writer(DISK, seed=seed))
            except CommandFailed as error:
                if "does not allow 'write'" not in error.description:
                    raise
                writer = Nobody(self.guest.read_sha256(DISK))
            yield writer

    @contextmanager
    def writer_over_a_pivot(self, seed: int) -> Iterator[Writer | Nobody]:
        """
        The same, where QEMU lets an NBD client write over a pivot.

        QEMU 5.2 does not quiesce its NBD server: at 119 of 140 pivots a write found the base's file
        open for reading only (EBADF by strace, EINVAL to the client). A Linux that wrote all the
        time through virtio-blk saw no error at 37 pivots. QEMU 6.1 mends it, and has
        `blockdev-reopen`.
        """
        commands = self.guest.qmp("query-commands")
        assert isinstance(commands, list)
        if {"name": "blockdev-reopen"} in commands:
            with self.writer(seed) as writer:
                yield writer
        else:
            yield Nobody(self.guest.read_sha256(DISK))

    def fill_layer(self, number: int) -> None:
        """Let the guest write what only this layer of the chain holds, and what hides others."""
        self.guest.write(DISK, (number * 384 * 1024) % SIZE, 64 * 1024, number)
        self.guest.write(DISK, 1 * MIB + 4096 * number, 8192, 100 + number)


def assert_sound(disk: Disk) -> None:
    """Every layer's format is certain, each header names the right one, each file opens with it."""
    for layer, below in zip(disk.layers, [*disk.layers[1:], None], strict=True):
        assert layer.verdict in (Verdict.EXACT, Verdict.AGREED), layer
        assert layer.format is not None
        assert layer.path is not None
        # -U: the guest has it open. It fails when the file is not of this format.
        qemu_img.run("info", layer.path, "-U", "-f", layer.format, layer.path)
        if layer.format == "qcow2":
            header = read_header(layer.path)
            assert header.backing_file == (below.file if below else None)
            assert header.backing_format == (below.format if below else None)


def unlocked(disk: DiskSpec) -> DiskSpec:
    """The disk without QEMU's image locks, which would keep two guests apart."""
    return replace(
        disk,
        blockdevs=tuple(
            {**one, "locking": "off"} if one["driver"] == "file" else one for one in disk.blockdevs
        ),
    )
