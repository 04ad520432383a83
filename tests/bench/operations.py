"""
An operation of the library beside the bare block job, and one of the command beside virsh.

All who do the same thing do it in turns on one guest. Between two turns the disk is brought back
to its one layer, by the library, and what was written is synced: none of that counts.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import qmpsnap
from qmpsnap.demo.embed import embedded_connection
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.journal.file import DEFAULT
from qmpsnap.monitor.socket import SocketMonitor
from tests.bench.bare import Bare, BareLibvirt, BareQmp, Virsh
from tests.bench.measure import Taken, in_turns
from tests.bench.plain import Plain
from tests.rig import daemon, images, libvirt_machine, qemu_machine
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.disks import raw_disk
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.machine import Machine
from tests.rig.rig import BASE, DISK, MIB, SERIAL

Operation = Literal["create", "commit", "active commit", "pull"]
OPERATIONS: Final[tuple[Operation, ...]] = ("create", "commit", "active commit", "pull")
_ID: Final = "an-id"
Road = Literal["direct", "libvirt", "libvirtd"]

GOALS: Final[Mapping[tuple[Road, int, Operation], float]] = {
    **{("direct", 16, what): goal for what, goal in zip(OPERATIONS, (4.0, 3.0, 3.0, 1.5), strict=True)},
    **{("libvirt", 16, what): goal for what, goal in zip(OPERATIONS, (2.0, 2.0, 2.0, 1.3), strict=True)},
    **{(road, 256, what): 1.3 for road in ("direct", "libvirt") for what in OPERATIONS[1:]},
    **{("libvirtd", 16, what): goal for what, goal in zip(OPERATIONS, (3.0, 0.6, 0.6, 0.6), strict=True)},
}  # fmt: skip
"""How many times the peer's time qmpsnap may need: by road, MiB and operation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One operation, by all who can do it."""

    road: Road
    mib: int
    operation: Operation
    taken: Mapping[str, Taken]

    @property
    def peer(self) -> str:
        """Whom qmpsnap is measured against."""
        if self.operation == "pull" and self.ours == "library":
            return "bare + flush"
        return "virsh" if "virsh" in self.taken else "bare"

    @property
    def ours(self) -> str:
        """The library, or the command."""
        return "command" if "command" in self.taken else "library"

    @property
    def ratio(self) -> float:
        """Our time for the peer's."""
        return self.taken[self.ours].wall_s / self.taken[self.peer].wall_s

    @property
    def goal(self) -> float | None:
        """What the ratio is to be at most."""
        return GOALS.get((self.road, self.mib, self.operation))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bed:
    """A guest on which an operation is done again and again."""

    road: Road
    mib: int
    machine: Machine
    volume: Path
    bare: Bare
    guest: Callable[[], AbstractContextManager[qmpsnap.Guest]]
    """A new object, as a caller makes it for each of its calls."""
    command: Callable[[list[str]], object] | None = None
    """Runs `qmpsnap`; None: not measured."""

    def rows(self, rounds: int, only: Operation | None = None) -> Iterator[Row]:
        """All operations."""
        for what in OPERATIONS if only is None else (only,):
            build = partial(self.build, what)
            taken = in_turns(self._works(what), rounds, before=build, after=self.clear)
            yield Row(road=self.road, mib=self.mib, operation=what, taken=taken)

    def _overlay(self, number: int) -> Path:
        return self.volume.with_name(f"{self.volume.name}.s{number}")

    def _works(self, what: Operation) -> dict[str, Callable[[], object]]:
        bare = self._bare(what)
        if self.command is not None:
            return {"virsh": bare, "command": lambda: self._by_command(what)}
        works: dict[str, Callable[[], object]] = {"bare": bare}
        if what == "pull":
            works["bare + flush"] = self._pull_and_flush
        if what == "commit" and self.road == "direct":
            works["bare + flush"] = self._commit_and_flush
        return {**works, "library": lambda: self.by_library(what)}

    def _bare(self, what: Operation) -> Callable[[], None]:
        first = self._overlay(1)
        return {
            "create": lambda: self.bare.create(self.volume, first),
            "commit": lambda: self.bare.commit(self.volume, first),
            "active commit": self.bare.commit_active,
            "pull": lambda: self.bare.pull(self.volume),
        }[what]

    def _pull_and_flush(self) -> None:
        self.bare.pull(self.volume)
        self.bare.flush(self.mib * MIB)

    def _commit_and_flush(self) -> None:
        """QEMU has opened the base read-only again by then, and flushes no such node."""
        self.bare.commit(self.volume, self._overlay(1))
        _sync(self.volume)

    def by_library(self, what: Operation, journal: qmpsnap.Journal | None = DEFAULT) -> None:
        """Do it with a new guest object."""
        with self.guest() as guest:
            if what == "create":
                qmpsnap.create(guest, DISK, "s1", journal=journal)
            else:
                files = self._files(what)
                update = qmpsnap.volume_snapshot_delete(guest, SERIAL, _ID, files, journal=journal)
                assert update.error is None

    def _by_command(self, what: Operation) -> None:
        assert self.command is not None
        if what == "create":
            self.command(["create", DISK, "s1"])
        else:
            self.command(["volume-snapshot-delete", SERIAL, _ID, json.dumps(self._files(what))])

    def _files(self, what: Operation) -> dict[str, str | None]:
        """Nova's arguments for a merge."""
        if what == "pull":
            return {"type": "qcow2", "file_to_merge": BASE, "merge_target_file": None}
        return {"type": "qcow2", "file_to_merge": f"{BASE}.s1", "merge_target_file": BASE}

    def build(self, what: Operation) -> None:
        """Make the layers that an operation needs, with all their data in `s1`."""
        if what != "create":
            self.bare.create(self.volume, self._overlay(1))
            self.machine.write(DISK, 0, self.mib * MIB, 1)
        if what in ("commit", "pull"):
            self.bare.create(self._overlay(1), self._overlay(2))
        for file in self.volume.parent.glob(f"{BASE}*"):
            _sync(file)

    def clear(self) -> None:
        """Bring the disk back to its one layer."""
        with self.guest() as guest:
            for one in qmpsnap.snapshots(guest.read().disk(DISK)):
                qmpsnap.delete(guest, DISK, one.name, method="commit")
        for number in (1, 2):
            self._overlay(number).unlink(missing_ok=True)


def measure(folder: Path, rounds: int, few: int) -> Iterator[Row]:
    """
    All operations on all roads.

    Args:
        folder: For images and libvirt's own files; its path is short.
        rounds: How often each does each.
        few: The same with much data.
    """
    for mib, times in ((16, rounds), (256, few)):
        with direct(folder, mib) as bed:
            yield from bed.rows(times)
    with embedded_connection(folder / "libvirt") as connection:
        for mib, times in ((16, rounds), (256, few)):
            with libvirt(connection, folder, mib) as bed:
                yield from bed.rows(times)
    with daemon.running() as libvirtd, _libvirtd(libvirtd, 16) as bed:
        yield from bed.rows(rounds)


@contextmanager
def direct(folder: Path, mib: int) -> Iterator[Bed]:
    """Run a guest with QEMU's own socket."""
    with TemporaryDirectory(dir=folder) as share:
        volume, other = _volume(Path(share), mib), f"{share}/other"
        with (
            qemu_machine.run(
                [raw_disk(volume, DISK, SERIAL)],
                directory=share,
                machine_args=("-qmp", f"unix:{other},server=on,wait=off"),
            ) as machine,
            closing(SocketMonitor.connect(machine.qmp_path)) as monitor,
            closing(Plain(other)) as client,
        ):
            yield Bed(
                road="direct",
                mib=mib,
                machine=machine,
                volume=volume,
                bare=BareQmp(client),
                guest=lambda: QmpGuest(monitor, pid=machine.pid),
            )


@contextmanager
def libvirt(connection: Any, folder: Path, mib: int) -> Iterator[Bed]:
    """Run a guest under libvirt's driver in this process."""
    with TemporaryDirectory(dir=folder) as share:
        volume = _volume(Path(share), mib)
        disk = LibvirtDisk(volume, "raw", DISK, SERIAL)
        with (
            libvirt_machine.run(connection, [disk], f"bench-{mib}", share) as machine,
            closing(BareLibvirt(machine.domain)) as bare,
        ):
            yield Bed(
                road="libvirt",
                mib=mib,
                machine=machine,
                volume=volume,
                bare=bare,
                guest=lambda: qmpsnap.from_domain(machine.domain),
            )


@contextmanager
def _libvirtd(libvirtd: Daemon, mib: int) -> Iterator[Bed]:
    share = libvirtd.folder / "share"
    share.mkdir()
    volume = _volume(share, mib)
    libvirtd.give(libvirtd.folder)
    machine = DaemonMachine(libvirtd, "bench", volume, DISK, SERIAL)
    way = ["--connect", libvirtd.uri]

    def run(arguments: list[str]) -> None:
        verb, *rest = arguments
        libvirtd.run([sys.executable, "-m", "qmpsnap", *way, verb, machine.name, *rest])

    try:
        yield Bed(
            road="libvirtd",
            mib=mib,
            machine=machine,
            volume=volume,
            bare=Virsh(libvirtd, machine.name),
            guest=machine.host,
            command=run,
        )
    finally:
        machine.destroy()


def _volume(folder: Path, mib: int) -> Path:
    volume = folder / BASE
    images.create_raw(volume, mib * MIB)
    return volume


def _sync(file: Path) -> None:
    with file.open("rb") as one:
        os.fsync(one.fileno())
