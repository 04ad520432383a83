"""A guest with one disk on each road: on its own QMP socket, and libvirt's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.socket import SocketMonitor
from qmpsnap.monitor.virt import find_domain
from qmpsnap.operations.guest import Guest
from tests.rig import images, libvirt_machine, qemu_machine
from tests.rig.disks import DiskSpec, qcow2_chain, raw_disk
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.processes import process_of
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig

Road = Literal["qmp", "libvirt"]
MakeRig = Callable[..., AbstractContextManager[Rig]]
"""`make_rig(base)`: a guest whose disk is one file, open in that way."""

_MARKS = {"qmp": pytest.mark.qemu, "libvirt": pytest.mark.libvirt}
_NUMBERS = itertools.count()


def on_roads(values: Mapping[Road, Iterable[object]]) -> list[Any]:
    """Parameters of a test that has other values on each road, for `("road", …)`."""
    return [
        pytest.param(road, value, marks=_MARKS[road])
        for road, those in values.items()
        for value in those
    ]


@contextmanager
def direct_rig(
    folder: Path, disks: DiskSpec | Sequence[DiskSpec], machine_args: Sequence[str] = ()
) -> Iterator[Rig]:
    """Start a guest with one disk, or with several, on its own QMP socket."""
    disks = [disks] if isinstance(disks, DiskSpec) else disks
    with qemu_machine.run(disks, directory=folder, machine_args=machine_args) as guest:
        path = str(guest.qmp_path)

        @contextmanager
        def connect() -> Iterator[Guest]:
            monitor = SocketMonitor.connect(path)
            try:
                yield QmpGuest(monitor, pid=monitor.pid, socket=path)
            finally:
                monitor.close()

        yield Rig(guest, folder, ["--qmp", path], [], connect, guest.kill)


@contextmanager
def libvirt_rig(
    connection: Any,
    folder: Path,
    base: str,
    disks: LibvirtDisk | Sequence[LibvirtDisk] = (),
    *,
    file: str = BASE,
    alter: Callable[[Any], None] | None = None,
) -> Iterator[Rig]:
    """
    Start a guest of libvirt whose disk is `file` in `folder`, of the format `base`; or other disks.

    `alter` changes its XML before it is used.
    """
    # A new name each time: libvirt keeps one until init has reaped its QEMU, for seconds in some
    # containers.
    name = f"web{next(_NUMBERS)}"
    if isinstance(disks, LibvirtDisk):
        disks = [disks]
    disks = disks or [LibvirtDisk(folder / file, base, DISK, SERIAL)]
    with libvirt_machine.run(
        connection, disks, name, directory=folder, alter=alter, find=process_of
    ) as guest:

        @contextmanager
        def connect() -> Iterator[Guest]:
            host = LibvirtGuest(find_domain(connection, name))
            try:
                yield host
            finally:
                host.close()

        road = ["--connect", connection.getURI()]
        yield Rig(guest, folder, road, [name], connect, guest.kill)


def chain_rig(
    road: Road, request: pytest.FixtureRequest, files: Sequence[tuple[Path, str]]
) -> AbstractContextManager[Rig]:
    """
    Start a guest whose disk is a chain that is there, on one road.

    Args:
        road: The road.
        request: The test's, for libvirt's connection.
        files: (file, format) in chain order; libvirt finds the lower ones by the headers.
    """
    (active, format), folder = files[0], files[0][0].parent
    if road == "qmp":
        return direct_rig(folder, qcow2_chain(files, DISK, SERIAL))
    connection = request.getfixturevalue("connection")
    return libvirt_rig(connection, folder, format, file=active.name)


def device_rig(
    road: Road, request: pytest.FixtureRequest, device: str, folder: Path
) -> AbstractContextManager[Rig]:
    """Start a guest whose disk is a block device, raw; `folder` is for what else it needs."""
    if road == "qmp":
        disk = raw_disk(device, DISK, SERIAL)
        file, raw = disk.blockdevs
        return direct_rig(folder, replace(disk, blockdevs=({**file, "driver": "host_device"}, raw)))

    def on_the_device(domain: Any) -> None:
        (disk,) = domain.iterfind("./devices/disk")
        disk.set("type", "block")
        disk.find("source").attrib.clear()
        disk.find("source").set("dev", device)

    connection = request.getfixturevalue("connection")
    return libvirt_rig(connection, folder, "raw", alter=on_the_device)


def direct_rigs(share: Path) -> MakeRig:
    """Make guests on their own QMP sockets; `base` may be `raw-without-node` as well."""

    def make(base: str, size: int = SIZE) -> AbstractContextManager[Rig]:
        path = _volume(share, base, size)
        if base == "qcow2":
            disk = qcow2_chain([(path, "qcow2")], DISK, SERIAL)
        else:
            disk = raw_disk(path, DISK, SERIAL, raw_node=base != "raw-without-node")
        return direct_rig(share, disk)

    return make


def libvirt_rigs(connection: Any, share: Path) -> MakeRig:
    """Make guests of libvirt."""

    def make(base: str, size: int = SIZE) -> AbstractContextManager[Rig]:
        _volume(share, base, size)
        return libvirt_rig(connection, share, base)

    return make


def _volume(share: Path, base: str, size: int) -> Path:
    share.mkdir(exist_ok=True)
    path = share / BASE
    if base == "qcow2":
        images.create_qcow2(path, size)
    else:
        images.create_raw(path, size)
    return path
