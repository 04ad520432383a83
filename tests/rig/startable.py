"""Guests that can be started again from any file of theirs: by QMP, in libvirt, in a libvirtd of our own."""

from __future__ import annotations

import itertools
import os
import select
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from lxml import etree

from qmpsnap.formats.qcow2 import Header
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.monitor.socket import NotQmp, SocketMonitor
from qmpsnap.monitor.virt import find_domain, libvirt_module
from qmpsnap.operations.guest import Guest
from tests.rig import images
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.defined import defined
from tests.rig.disks import qcow2_chain
from tests.rig.kills import Victim, format_of
from tests.rig.libvirt_machine import embedded_process, machine_of
from tests.rig.machine import Machine
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig
from tests.rig.roads import direct_rig
from tests.rig.started import Startable
from tests.rig.waiting import until

Startables = Callable[[], AbstractContextManager[Startable]]
_PATTERNS: Final = itertools.cycle(range(1, 256))


def direct(folder: Path) -> Startables:
    """Guests with a QEMU of their own."""

    @contextmanager
    def make() -> Iterator[Startable]:
        _emptied(folder)
        images.create_raw(folder / BASE, SIZE)
        yield from running(folder / BASE, grows=True)

    @contextmanager
    def started(path: Path) -> Iterator[Startable]:
        yield from running(path)

    def running(path: Path, *, grows: bool = False) -> Iterator[Startable]:
        with direct_rig(folder, qcow2_chain(_by_headers(path), DISK, SERIAL)) as rig:
            if grows:
                rig.grow(3)
                rig.guest.qemu_io(DISK, "flush")
            yield Startable(
                victim=_victim(folder, rig.guest, rig.connect, rig.kill),
                write=lambda: _write(rig.guest),
                kill=rig.kill,
                start=started,
            )

    return make


def in_libvirt(connection: Any, folder: Path) -> Startables:
    """Guests that libvirt has defined; its hook is not installed."""

    @contextmanager
    def make() -> Iterator[Startable]:
        _emptied(folder)
        images.create_raw(folder / BASE, SIZE)
        with defined(connection, folder / BASE, "raw") as one:
            yield from running(one.domain, grows=True)

    def running(domain: Any, *, grows: bool = False) -> Iterator[Startable]:
        domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)
        name = domain.name()

        @contextmanager
        def connect() -> Iterator[Guest]:
            host = LibvirtGuest(find_domain(connection, name))
            try:
                yield host
            finally:
                host.close()

        @contextmanager
        def started(path: Path) -> Iterator[Startable]:
            yield from running(pointed(connection, domain, path))

        with TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
            guest = machine_of(domain, embedded_process(domain), Path(scratch), folder)

            def kill() -> None:
                guest.kill()
                until(lambda: not domain.isActive(), "libvirt still calls it active")

            mine = Startable(
                victim=_victim(folder, guest, connect, kill),
                write=lambda: _write(guest),
                kill=kill,
                start=started,
                is_defined=True,
            )
            try:
                if grows:
                    _grown(guest, mine.victim)
                yield mine
            finally:
                kill()

    return make


def in_a_daemon(daemon: Daemon, folder: Path) -> Startables:
    """Guests of a libvirtd, which is killed with them: before they write, right after the tool."""

    @contextmanager
    def make() -> Iterator[Startable]:
        _emptied(folder)
        images.create_raw(folder / BASE, SIZE)
        daemon.give(folder)
        guest = _Orphan(daemon, f"all{next(_PATTERNS)}", folder / BASE, DISK, SERIAL, define=True)
        mine = running(guest, dies=True)
        try:
            _grown(guest, mine.victim)
            yield mine
        finally:
            mine.kill()
            with guest.domain() as domain:
                domain.undefine()

    def running(guest: _Orphan, *, dies: bool = False) -> Startable:
        @contextmanager
        def started(path: Path) -> Iterator[Startable]:
            with guest.domain() as domain:
                pointed(domain.connect(), domain, path)
                domain.createWithFlags(libvirt_module().VIR_DOMAIN_START_PAUSED)
            mine = running(guest)
            try:
                yield mine
            finally:
                mine.kill()

        def write() -> None:
            if dies:
                daemon.stop(signal.SIGKILL)
            _write(guest)

        def kill() -> None:
            guest.kill()
            if not daemon.lives:
                daemon.start()
            until(lambda: not guest.running, "libvirt still calls it active")

        victim = _victim(folder, guest, guest.host, kill)
        return Startable(victim=victim, write=write, kill=kill, start=started, is_defined=True)

    return make


def _greeted(path: Path) -> SocketMonitor:
    """Connect where a libvirtd has died: what QEMU could not tell it any more comes first, once."""
    for _ in range(20):
        with suppress(NotQmp):
            return SocketMonitor.connect(path)
    return SocketMonitor.connect(path)


class _Orphan(DaemonMachine):
    """A guest that can be talked to without its libvirtd: nobody else has its monitor then."""

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        if self.daemon.lives:
            return super().qmp(command, arguments)
        (path,) = self.daemon.folder.glob(f"**/domain-*-{self.name}/monitor.sock")
        monitor = _greeted(path)
        try:
            return monitor.execute(command, arguments)
        finally:
            monitor.close()

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        for file in self.daemon.folder.glob(f"**/qemu/run/{self.name}.pid"):
            with suppress(ProcessLookupError):
                process = os.pidfd_open(int(file.read_text()))
                signal.pidfd_send_signal(process, signal.SIGKILL)
                select.select([process], [], [])
                os.close(process)


def pointed(connection: Any, domain: Any, path: Path) -> Any:
    """The guest, whose definition names a file by now: libvirt finds the lower ones by the headers."""
    flags = libvirt_module().VIR_DOMAIN_XML_INACTIVE
    root = etree.fromstring(domain.XMLDesc(flags))
    (disk,) = root.iterfind("./devices/disk")
    for store in disk.findall("backingStore"):
        disk.remove(store)
    (source,), (driver,) = disk.findall("source"), disk.findall("driver")
    source.set("file", str(path))
    driver.set("type", format_of(path))
    return connection.defineXML(etree.tostring(root, encoding="unicode"))


def _victim(
    folder: Path,
    guest: Machine,
    connect: Callable[[], AbstractContextManager[Guest]],
    kill: Callable[[], None],
) -> Victim:
    return Victim(
        folder=folder,
        connect=connect,
        content=lambda: guest.read_sha256(DISK),
        sound=lambda: None,
        kill=kill,
    )


def _write(guest: Machine) -> None:
    """Something new, in its own place and over what each layer has."""
    pattern = next(_PATTERNS)
    guest.write(DISK, 1 * MIB + 4096, 64 * 1024, pattern)
    guest.write(DISK, 3 * MIB, 4096, pattern)
    guest.qemu_io(DISK, "flush")


def _grown(guest: Machine, victim: Victim) -> None:
    """Three layers, as those that the other kill tests have."""
    rig = Rig(guest, victim.folder, [], [], victim.connect, victim.kill)
    rig.grow(3)
    guest.qemu_io(DISK, "flush")


def _by_headers(path: Path) -> list[tuple[Path, str]]:
    """The chain that begins with a file, with the formats that it was made with."""
    found = [(path, format_of(path))]
    while found[-1][1] == "qcow2":
        header: Header = read_header(str(found[-1][0]))
        if header.backing_file is None:
            break
        below = path.parent / header.backing_file
        found.append((below, format_of(below)))
    return found


def _emptied(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*"):
        path.unlink()
