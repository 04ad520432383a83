"""
Deep and wide guests: reading them leaves libvirt's connection to QEMU whole.

libvirt loses it for good by a reply of more than 10 MiB, and libvirt 11.3 by one that nests as
deeply as 26 layers do. Each test ends by asking just that, so as to show that it could have failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

from qmpsnap.monitor.passthrough import PassthroughMonitor, PassthroughOff
from qmpsnap.monitor.virt import libvirt_module
from tests.layouts_libvirt.layout import MIB
from tests.layouts_libvirt.running import started
from tests.rig import images
from tests.rig.rig import Said

Cli = Callable[..., Said]


_SHALLOW: Final = 20
"""Layers with which libvirt 11.3 can start a guest; it fails with 26. The others are added by
snapshots, as in life."""


class Deep:
    """A guest, the folder of its images, and what its disks are made of."""

    def __init__(self, domain: Any, folder: Path, targets: Sequence[str]) -> None:
        self.domain = domain
        self.folder = folder
        self.targets = targets

    def grow(self, number: int) -> None:
        """Let libvirt put a layer on each disk."""
        libvirt = libvirt_module()
        disks = "".join(
            f"<disk name='{target}' snapshot='external' type='file'><driver type='qcow2'/>"
            f"<source file='{self.folder}/{target}.{number}'/></disk>"
            for target in self.targets
        )
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        text = f"<domainsnapshot><disks>{disks}</disks></domainsnapshot>"
        self.domain.snapshotCreateXML(text, flags)


@contextmanager
def _deep(connection: Any, width: int, depth: int) -> Iterator[Deep]:
    with TemporaryDirectory(prefix="ls-", dir="/tmp") as name:
        folder = Path(name)
        targets = [f"vd{chr(ord('a') + number)}" for number in range(width)]
        starts = _SHALLOW if is_11_3(connection) else depth
        _chains(folder, targets, starts)
        disks = "".join(
            f"<disk type='file'><driver name='qemu' type='qcow2' cache='unsafe'/>"
            f"<source file='{folder}/{target}'/><target dev='{target}' bus='virtio'/></disk>"
            for target in targets
        )
        text = (
            f"<domain type='qemu'><name>{folder.name}</name><memory unit='MiB'>32</memory>"
            "<os><type arch='x86_64' machine='pc'>hvm</type></os><devices>"
            f"<controller type='usb' model='none'/><memballoon model='none'/>{disks}</devices>"
            "</domain>"
        )
        with started(connection, text) as domain:
            guest = Deep(domain, folder, targets)
            for number in range(starts, depth):
                guest.grow(number)
            yield guest


def is_11_3(connection: Any) -> bool:
    """Whether this is the libvirt that cannot parse what nests deeply."""
    return bool(connection.getLibVersion() // 1000 == 11_003)


def _chains(folder: Path, targets: Sequence[str], depth: int) -> None:
    """Make `TARGET.0`, raw, and qcow2 layers over it; the last one is `TARGET`."""
    first, *others = targets
    images.create_raw(folder / f"{first}.0", MIB)
    images.create_qcow2(folder / f"{first}.1", MIB, folder / f"{first}.0", "raw")
    for number in range(2, depth):
        top = folder / (f"{first}.{number}" if number < depth - 1 else first)
        images.create_qcow2(top, MIB, folder / f"{first}.{number - 1}", "qcow2")
    # A thousand times qemu-img takes half a minute; the names in the headers are of one length.
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        for other in others:
            copy = content.replace(f"/{first}.".encode(), f"/{other}.".encode())
            (folder / file.name.replace(first, other)).write_bytes(copy)


def _assert_read(cli: Cli, guest: Deep, depth: int) -> None:
    said = cli("chain", guest.domain.name(), "-o", "json")
    assert said.code == 0, said.err
    assert said.json["notes"] == []
    for disk in said.json["disks"]:
        assert [layer["format"] for layer in disk["layers"]] == ["qcow2"] * (depth - 1) + ["raw"]
        assert {layer["verdict"] for layer in disk["layers"]} == {"agreed"}


def _assert_whole(cli: Cli, guest: Deep, depth: int) -> None:
    """Read, take a snapshot, and read again."""
    _assert_read(cli, guest, depth)
    said = cli("create", guest.domain.name(), "vda", "new")
    assert said.code == 0, said
    said = cli("delete", guest.domain.name(), "vda", "new")
    assert said.code == 0, said
    _assert_read(cli, guest, depth)


def _assert_nested_breaks(cli: Cli, guest: Deep, words: str) -> None:
    """
    Show that what the tool never asks would have ended libvirt's talk with this QEMU.

    From then on the tool does with the XML, and says why.
    """
    with pytest.raises(PassthroughOff, match=words):
        PassthroughMonitor(guest.domain).execute("query-named-block-nodes", timeout=60)
    with pytest.raises(libvirt_module().libvirtError, match=words):
        guest.domain.blockInfo("vda")
    said = cli("chain", guest.domain.name(), "-o", "json")
    assert said.code == 0, said.err
    (note,) = said.json["notes"]
    assert "for good" in note
    layers = [layer for disk in said.json["disks"] for layer in disk["layers"]]
    assert {layer["verdict"] for layer in layers} == {"stated"}


def test_forty_layers(connection: Any, cli: Cli) -> None:
    with _deep(connection, 1, 40) as guest:
        _assert_whole(cli, guest, 40)
        if is_11_3(connection):
            _assert_nested_breaks(cli, guest, "nesting too deep")


def test_sixteen_disks_of_64_layers(connection: Any, cli: Cli) -> None:
    with _deep(connection, 16, 64) as guest:
        _assert_whole(cli, guest, 64)
        _assert_nested_breaks(cli, guest, "exceeds buffer size")
