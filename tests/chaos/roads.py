"""The two roads to a guest whose disks are kept beside in a model: its own QMP, and libvirt."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any, Final

from qmpsnap.errors import QmpsnapError
from qmpsnap.graph import xml
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guest import Guest
from tests.chaos.model import Disk, Written
from tests.rig.disks import DiskSpec, qcow2_chain
from tests.rig.export import exported
from tests.rig.libvirt_machine import LibvirtDisk, LibvirtMachine
from tests.rig.qemu_machine import QemuMachine
from tests.rig.rig import Rig
from tests.rig.roads import direct_rig, libvirt_rig
from tests.rig.writer import NbdClient, Writer, writing

_NUMBERS: Final = itertools.count()
BREATH_S: Final = 0.005
"""What a guest rests after each write: one that never does leaves the tool no processor."""


@dataclass(eq=False)
class Running(ABC):
    """A guest that runs, the tool pointed at it, and a second client of its QEMU."""

    rig: Rig
    observer: Guest
    """A connection that only reads, for as long as the guest runs."""

    @abstractmethod
    def cancel(self, disk: Disk, *, soft: bool) -> None:
        """Cancel the job of a disk, if there is one; as another client."""

    @abstractmethod
    def on_event(self, event: str, call: Callable[[], None]) -> AbstractContextManager[None]:
        """Call, on another thread, as soon as QEMU has sent an event of this name."""

    @abstractmethod
    def agreed(self, disks: Sequence[Disk]) -> None:
        """What only this road can compare with the model."""

    def quit(self) -> None:
        """End QEMU in an orderly way."""
        assert isinstance(self.rig.guest, QemuMachine | LibvirtMachine)
        self.rig.guest.quit()

    def jobs(self) -> list[Any]:
        """Jobs that QEMU knows."""
        found = self.rig.guest.qmp("query-jobs")
        assert isinstance(found, list)
        return found

    def flush(self, disks: Sequence[Disk]) -> None:
        """Flush, as a guest does. Not while a job is about to change the graph: see `NbdClient`."""
        for disk in disks:
            self.rig.guest.qemu_io(disk.id, "flush")
            disk.on_disk()

    @contextmanager
    def written_to(self, disk: Disk, *, seed: int, writes: int = 4_000) -> Iterator[Writer]:
        """
        Write to a disk in the background; its model follows.

        Raises:
            WriteFailed: On leaving: a write failed.
        """
        guest = self.rig.guest
        with (
            tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp") as folder,
            exported(
                guest.qmp,
                guest.active_node(disk.id),
                socket=Path(folder, "nbd"),
                writable=True,
            ) as url,
            closing(NbdClient(url)) as client,
        ):

            def write(offset: int, length: int, pattern: int) -> None:
                disk.unflushed.append(Written(offset, length, pattern))
                client.write(offset, length, pattern)
                time.sleep(BREATH_S)

            with writing(write, disk.content, seed=seed, max_writes=writes) as writer:
                yield writer


class Road(ABC):
    """How a guest is started and reached."""

    name: str

    @abstractmethod
    def start(self, folder: Path, disks: Sequence[Disk]) -> AbstractContextManager[Running]:
        """Run a paused guest on these files for as long as the context is open."""


@dataclass(eq=False)
class DirectRunning(Running):
    """A QEMU of our own."""

    observed_at: str
    """QMP socket that is free for `on_event`."""

    def cancel(self, disk: Disk, *, soft: bool) -> None:
        """See `Running.cancel`; softly, a mirror that is ready ends without an error."""
        for job in self.jobs():
            with suppress(QmpsnapError):  # it has ended meanwhile, or waits for its finalize
                if soft:
                    self.rig.guest.qmp("block-job-cancel", {"device": job["id"]})
                else:
                    self.rig.guest.qmp("job-cancel", {"id": job["id"]})

    @contextmanager
    def on_event(self, event: str, call: Callable[[], None]) -> Iterator[None]:
        """See `Running.on_event`."""
        monitor, over = SocketMonitor.connect(self.observed_at), threading.Event()

        def watch() -> None:
            while not over.is_set():
                with suppress(Empty):
                    if monitor.events.get(timeout=0.05).name == event:
                        call()

        thread = threading.Thread(target=watch, name="chaos-observer", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            monitor.close()

    def agreed(self, disks: Sequence[Disk]) -> None:
        """QMP is all there is."""


Describe = Callable[[Disk], DiskSpec]


def described(disk: Disk) -> DiskSpec:
    """A disk as arguments for QEMU: every layer named, its format from the model."""
    files = [(disk.path(layer.file), layer.format) for layer in disk.layers]
    return qcow2_chain(files, disk.id, disk.serial, raw_node=disk.raw_node)


class DirectRoad(Road):
    """A QEMU of our own, over its QMP socket."""

    name = "direct"

    def __init__(self, describe: Describe = described) -> None:
        """With another way to describe a disk, QEMU opens it in another way."""
        self._describe = describe

    @contextmanager
    def start(self, folder: Path, disks: Sequence[Disk]) -> Iterator[Running]:
        """See `Road.start`. A monitor has one client at a time, so each observer has its own."""
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp"))
            events, reads = f"{scratch}/events", f"{scratch}/reads"
            arguments = [
                word
                for path in (events, reads)
                for word in ("-qmp", f"unix:{path},server=on,wait=off")
            ]
            specs = [self._describe(disk) for disk in disks]
            rig = stack.enter_context(direct_rig(folder, specs, arguments))
            observer = QmpGuest(stack.enter_context(closing(SocketMonitor.connect(reads))))
            yield DirectRunning(rig, observer, events)


class LibvirtRunning(Running):
    """A guest of libvirt."""

    @property
    def domain(self) -> Any:
        """The `virDomain`."""
        assert isinstance(self.rig.guest, LibvirtMachine)
        return self.rig.guest.domain

    def cancel(self, disk: Disk, *, soft: bool) -> None:
        """See `Running.cancel`: libvirt cancels by force, and waits for the end or does not."""
        libvirt = libvirt_module()
        with suppress(libvirt.libvirtError):  # it has ended meanwhile
            flags = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_ASYNC if soft else 0
            self.domain.blockJobAbort(disk.id, flags)

    @contextmanager
    def on_event(self, event: str, call: Callable[[], None]) -> Iterator[None]:
        """
        See `Running.on_event`.

        It listens to all guests: libvirt refuses a second listener to the same one.
        """
        qemu, connection = libvirt_module("libvirt_qemu"), self.domain.connect()

        def heard(_connection: object, domain: Any, *_rest: object) -> None:
            if domain.name() == self.domain.name():
                call()

        number = qemu.qemuMonitorEventRegister(connection, None, event, heard, None, 0)
        try:
            yield
        finally:
            qemu.qemuMonitorEventDeregister(connection, number)

    def agreed(self, disks: Sequence[Disk]) -> None:
        """libvirt's XML has the model's chains, and no job of its own is left."""
        described = {one.target: one for one in xml.parse(self.domain.XMLDesc(0)).disks}
        for disk in disks:
            found = described[disk.id]
            assert [(layer.path, layer.format) for layer in found.layers] == [
                (str(disk.path(layer.file)), layer.format) for layer in disk.layers
            ]
            assert self.domain.blockJobInfo(disk.id, 0) == {}


class LibvirtRoad(Road):
    """libvirt's driver inside this process; one connection for the whole session."""

    name = "libvirt"

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @contextmanager
    def start(self, folder: Path, disks: Sequence[Disk]) -> Iterator[Running]:
        """See `Road.start`."""
        described = [
            LibvirtDisk(disk.path(disk.active.file), disk.active.format, disk.id, disk.serial)
            for disk in disks
        ]
        with (
            libvirt_rig(self._connection, folder, "", described) as rig,
            rig.host() as observer,
        ):
            yield LibvirtRunning(rig, observer)
