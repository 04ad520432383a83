"""
Unplug the disk of a guest that runs, and plug one in: as whoever manages the guest does it.

It is a SCSI disk, since that goes without the help of the guest, in which nothing runs here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from lxml import etree
from lxml.builder import E  # type: ignore[import-not-found]

from qmpsnap.monitor.base import CommandFailed
from tests.rig.disks import qcow2_chain
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import Road, direct_rig, libvirt_rig
from tests.rig.waiting import until


@dataclass
class Plugged(ABC):
    """A guest with one disk that can be taken away."""

    rig: Rig

    @abstractmethod
    def unplug(self, disk: str = DISK) -> None:
        """Take a disk away, and close its files."""

    @abstractmethod
    def plug(self, path: Path, disk: str = DISK) -> None:
        """Plug in a qcow2 file, and what its header says below."""

    @abstractmethod
    def io(self, command: str, disk: str = DISK) -> None:
        """Let `qemu-io` do something to a disk."""

    def write(self, pattern: int, disk: str = DISK) -> None:
        """The guest writes, and flushes."""
        self.io(f"write -P {pattern} 0 64k", disk)
        self.io("flush", disk)


class Direct(Plugged):
    """On a QMP socket."""

    def unplug(self, disk: str = DISK) -> None:
        """See `Plugged`."""
        qmp = self.rig.guest.qmp
        qmp("device_del", {"id": disk})
        until(lambda: all(one["qdev"] != disk for one in cast("list[Any]", qmp("query-block"))))
        self.close_files()

    def close_files(self) -> None:
        """Close what no disk and no job reads."""
        qmp = self.rig.guest.qmp
        before: list[Any] = []
        while before != (nodes := cast("list[Any]", qmp("query-named-block-nodes"))):
            before = nodes
            for node in nodes:
                with suppress(CommandFailed):  # another node, or another disk, reads it
                    qmp("blockdev-del", {"node-name": node["node-name"]})

    def plug(self, path: Path, disk: str = DISK) -> None:
        """See `Plugged`."""
        file = {"driver": "file", "filename": str(path)}
        node = {"driver": "qcow2", "node-name": f"{disk}-again", "file": file}
        self.rig.guest.qmp("blockdev-add", node)
        device = {"driver": "scsi-hd", "id": disk, "drive": f"{disk}-again"}
        self.rig.guest.qmp("device_add", device)

    def io(self, command: str, disk: str = DISK) -> None:
        """See `Plugged`."""
        assert not self.rig.guest.hmp(f'qemu-io -d {disk} "{command}"')


class InLibvirt(Plugged):
    """A guest of libvirt."""

    @property
    def domain(self) -> Any:
        """The `virDomain`."""
        return cast(LibvirtMachine, self.rig.guest).domain

    def unplug(self, disk: str = DISK) -> None:
        """See `Plugged`."""
        document = etree.fromstring(self.domain.XMLDesc())
        (found,) = document.iterfind(f".//disk/target[@dev='{disk}']/..")
        self.domain.detachDevice(etree.tostring(found).decode())
        until(lambda: f"dev='{disk}'" not in self.domain.XMLDesc())

    def plug(self, path: Path, disk: str = DISK) -> None:
        """See `Plugged`."""
        element = E.disk(
            E.driver(name="qemu", type="qcow2"),
            E.source(file=str(path)),
            E.target(dev=disk, bus="scsi"),
            E.alias(name=f"ua-{disk}"),
            type="file",
            device="disk",
        )
        self.domain.attachDevice(etree.tostring(element).decode())

    def io(self, command: str, disk: str = DISK) -> None:
        """See `Plugged`."""
        assert not self.rig.guest.hmp(f'qemu-io -d ua-{disk} "{command}"')


@contextmanager
def direct_plugged(folder: Path) -> Iterator[Direct]:
    """A guest on a QMP socket whose disk is the qcow2 file `BASE` of a folder, and `s1` above it."""
    disk = replace(qcow2_chain(_files(folder), DISK, SERIAL), bus="scsi")
    with direct_rig(folder, disk) as rig:
        yield Direct(rig)


@contextmanager
def plugged(road: Road, request: pytest.FixtureRequest, folder: Path) -> Iterator[Plugged]:
    """The same on one road."""
    if road == "qmp":
        with direct_plugged(folder) as guest:
            yield guest
        return
    connection = request.getfixturevalue("connection")
    name = _files(folder)[0][0].name
    with libvirt_rig(connection, folder, "qcow2", file=name, alter=_on_scsi) as rig:
        yield InLibvirt(rig)


def _files(folder: Path) -> list[tuple[Path, str]]:
    paths = (folder / f"{BASE}.s1", folder / BASE)
    return [(path, "qcow2") for path in paths if path.exists()]


def _on_scsi(domain: Any) -> None:
    (devices,) = domain.iterfind("./devices")
    for target in devices.iterfind("./disk/target"):
        target.set("bus", "scsi")
    devices.append(E.controller(type="scsi", model="virtio-scsi"))
