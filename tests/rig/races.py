"""Somebody else is faster."""

from __future__ import annotations

from qmpsnap.monitor.virt import libvirt_module
from tests.rig import images
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, SIZE, Rig


def take_theirs(rig: Rig) -> None:
    """Take a snapshot as another client does, `theirs`, of a disk that has only its raw base."""
    path = rig.folder / f"{BASE}.theirs"
    images.create_qcow2(path, SIZE, BASE, "raw")
    if isinstance(rig.guest, LibvirtMachine):
        libvirt = libvirt_module()
        flags = (
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
        )
        disk = (
            f"<disk name='{DISK}' snapshot='external' type='file'><driver type='qcow2'/>"
            f"<source file='{path}'/></disk>"
        )
        rig.guest.domain.snapshotCreateXML(
            f"<domainsnapshot><disks>{disk}</disks></domainsnapshot>", flags
        )
        return
    node = {"driver": "qcow2", "node-name": "theirs", "backing": None}
    file = {"driver": "file", "filename": str(path), "node-name": "theirs-file"}
    rig.guest.qmp("blockdev-add", {**node, "file": file})
    active = rig.guest.active_node(DISK)
    rig.guest.qmp("blockdev-snapshot", {"node": active, "overlay": "theirs"})
