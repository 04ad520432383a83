"""
A guest of libvirt, over libvirt's QEMU driver inside this process.

libvirt waits until a QEMU that has ended is reaped. Its QEMUs are children of the init process, and
in some containers that one reaps every two seconds only: a guest is then gone for its user at once,
and for libvirt later. Guests of different names do not wait for each other.
"""

from __future__ import annotations

import os
import re
import select
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from lxml import etree
from lxml.builder import E, ElementMaker  # type: ignore[import-not-found]

from qmpsnap.demo.embed import root_of
from qmpsnap.graph import xml
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.monitor.virt import libvirt_module
from tests.rig.disks import qdev
from tests.rig.machine import Machine
from tests.rig.waiting import HANG_S, until

_TAINT_NOTE: Final = re.compile(r"^[-0-9]{10} [^\n]* is tainted: [^\n]*$", re.MULTILINE)


_ENDED: Final[dict[Path, list[str]]] = {}
"""
By folder, the guests that have ended. libvirt may not have noticed: the next guest on the same
files would share them with those, in its words, and so in ours.
"""

_QEMU: Final = "http://libvirt.org/schemas/domain/qemu/1.0"
"""Name space of what libvirt hands through to QEMU."""


@dataclass(frozen=True, slots=True)
class LibvirtDisk:
    """One disk as the domain XML describes it. libvirt finds the layers below by the headers."""

    path: str | os.PathLike[str]
    format: str
    """Of the active layer."""
    target: str = "vda"
    """Name of the disk in the guest, and its id here."""
    serial: str | None = None

    def element(self) -> Any:
        """The disk as a `<disk>`."""
        disk = E.disk(
            E.driver(name="qemu", type=self.format),
            E.source(file=str(Path(self.path).absolute())),
            E.target(dev=self.target, bus="virtio"),
            E.alias(name=f"ua-{self.target}"),
            type="file",
            device="disk",
        )
        if self.serial is not None:
            disk.append(E.serial(self.serial))
        return disk


@dataclass(frozen=True, slots=True)
class Process:
    """The QEMU of a domain, as libvirt's API does not tell it."""

    pid: int
    output: Path
    """What it prints."""


def embedded_process(domain: Any) -> Process:
    """Where the driver in this process keeps it."""
    root, name = root_of(domain.connect()), domain.name()
    pid = int((root / "run" / "qemu" / f"{name}.pid").read_text())
    return Process(pid, root / "log" / "qemu" / f"{name}.log")


class LibvirtMachine(Machine):
    """One domain; made by `run()`."""

    def __init__(
        self,
        *,
        domain: Any,
        process: Process,
        qdevs: Mapping[str, str],
        scratch: Path,
        directory: Path,
    ) -> None:
        self.domain = domain
        """The `virDomain`."""
        self.name: str = domain.name()
        super().__init__(
            qdevs=qdevs,
            output=process.output,
            scratch=scratch,
            directory=directory,
        )
        self._monitor = PassthroughMonitor(domain)
        self.pid = process.pid
        """Process id of QEMU."""
        self._process: int | None = os.pidfd_open(self.pid)

    @property
    def running(self) -> bool:
        """See `Machine.running`."""
        return self._process is not None and not _wait_dead(self._process, 0)

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """See `Machine.qmp`; goes through libvirt's passthrough, which taints the domain."""
        return self._monitor.execute(command, arguments)

    def qemu_io(self, disk_id: str, command: str) -> str:
        """See `Machine.qemu_io`; libvirt writes notes of its own to the same file."""
        return _TAINT_NOTE.sub("", super().qemu_io(disk_id, command)).strip()

    def quit(self) -> None:
        """
        End QEMU in an orderly way; libvirt notices by itself, later.

        `destroy()` also waits for the init process to reap QEMU, for seconds in some containers;
        and so does any passthrough command at that time, which is why QEMU gets a signal.
        """
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGTERM)
            _wait_dead(self._process, HANG_S)
        self.kill()

    def kill(self) -> None:
        """End QEMU by SIGKILL and wait for its end; libvirt notices by itself, later."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        assert _wait_dead(self._process, HANG_S)
        os.close(self._process)
        self._process = None

    def destroy(self) -> None:
        """Let libvirt end the guest, and wait until it has."""
        libvirt = libvirt_module()
        with suppress(libvirt.libvirtError):
            self.domain.destroy()
        wait_until_gone(self.domain.connect(), self.name)


@contextmanager
def run(
    connection: Any,
    disks: Sequence[LibvirtDisk],
    name: str,
    directory: str | os.PathLike[str],
    *,
    alter: Callable[[Any], None] | None = None,
    find: Callable[[Any], Process] = embedded_process,
) -> Iterator[LibvirtMachine]:
    """
    Run a paused guest, without KVM, for as long as the context is open.

    Args:
        connection: From `embedded_connection()`, or with a `find` of its own.
        disks: Its disks.
        name: Name of the guest. If an ended guest of this name is still known, libvirt is first
            given time to forget it.
        directory: Where copies of disks are made.
        alter: Changes the `<domain>` (an lxml element) before it is used.
        find: Finds the QEMU of the `virDomain`.
    """
    libvirt = libvirt_module()
    wait_until_gone(connection, name)
    wait_until_unused(connection, Path(directory))
    document = domain_of(disks, name, os.environ.get("QMPSNAP_QEMU"))
    if alter is not None:
        alter(document)
    text = etree.tostring(document)
    # Short, for the NBD socket in it.
    with TemporaryDirectory(prefix="qmpsnap-", dir="/tmp") as scratch:
        domain = connection.createXML(text.decode(), libvirt.VIR_DOMAIN_START_PAUSED)
        guest = machine_of(domain, find(domain), Path(scratch), Path(directory))
        try:
            yield guest
        finally:
            guest.quit()
            _ENDED.setdefault(Path(directory), []).append(name)


def machine_of(domain: Any, process: Process, scratch: Path, directory: Path) -> LibvirtMachine:
    """The guest of a `virDomain` that runs; the folders as `Machine` takes them."""
    return LibvirtMachine(
        domain=domain,
        process=process,
        qdevs={
            disk.target: qdev(disk.alias or "", "virtio")
            for disk in xml.parse(domain.XMLDesc()).disks
        },
        scratch=scratch,
        directory=directory,
    )


def wait_until_gone(connection: Any, name: str) -> None:
    """Wait until libvirt knows no guest of this name."""
    libvirt = libvirt_module()

    def is_gone() -> bool:
        try:
            connection.lookupByName(name)
        except libvirt.libvirtError:
            return True
        return False

    # Where nobody reaps, libvirt gives up by itself after 15 seconds or so.
    until(is_gone, f"the guest {name} is still there")


def wait_until_unused(connection: Any, folder: Path) -> None:
    """Wait until libvirt knows no guest any more that has ended on files of a folder."""
    for name in _ENDED.pop(folder, ()):
        wait_until_gone(connection, name)


def domain_of(disks: Sequence[LibvirtDisk], name: str, qemu: str | None) -> Any:
    """A guest as a `<domain>` (an lxml element), run by `qemu` or by libvirt's own choice."""
    devices = E.devices(*(disk.element() for disk in disks))
    if qemu is not None:
        devices.append(E.emulator(qemu))
    devices.append(E.controller(type="usb", model="none"))
    devices.append(E.memballoon(model="none"))
    return E.domain(
        E.name(name),
        E.memory("32", unit="MiB"),
        E.os(E.type("hvm", arch="x86_64", machine="pc")),
        devices,
        _writable_beside(disks),
        type="qemu",
    )


def _writable_beside(disks: Sequence[LibvirtDisk]) -> Any:
    """
    Let an NBD client write beside each device, as `Machine.writer` does.

    `<shareable/>` would say the same, but libvirt then refuses qcow2.
    """
    qemu = ElementMaker(namespace=_QEMU, nsmap={"qemu": _QEMU})
    share = {"name": "share-rw", "type": "bool", "value": "true"}
    return qemu.override(
        *(
            qemu.device(qemu.frontend(qemu.property(**share)), alias=f"ua-{disk.target}")
            for disk in disks
        )
    )


def _wait_dead(process: int, seconds: float) -> bool:
    """
    Wait until a process has ended with all its threads; it need not be reaped.

    A process that /proc calls a zombie may have threads that still end, and hold its image locks.
    """
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
