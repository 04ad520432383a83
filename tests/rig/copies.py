"""The whole disk of a guest copied into a new file while it runs, as a message advises."""

from __future__ import annotations

from pathlib import Path

from qmpsnap.monitor.virt import libvirt_module
from tests.rig import images
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.machine import Machine
from tests.rig.rig import DISK
from tests.rig.waiting import until


def copied(guest: Machine, path: Path) -> None:
    """Copy the disk into a new qcow2 file of no other (`virsh blockcopy`, QMP `blockdev-mirror`), and switch to it."""
    images.create_qcow2(path, guest.virtual_size(DISK))
    if isinstance(guest, LibvirtMachine):
        _by_libvirt(guest, path)
    else:
        _by_qmp(guest, path)
    guest.qemu_io(DISK, "flush")


def _by_libvirt(guest: LibvirtMachine, path: Path) -> None:
    libvirt = libvirt_module()
    text = f"<disk type='file'><driver type='qcow2'/><source file='{path}'/></disk>"
    guest.domain.blockCopy(DISK, text, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT)
    until(lambda: "ready='yes'" in guest.domain.XMLDesc())
    guest.domain.blockJobAbort(DISK, libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT)


def _by_qmp(guest: Machine, path: Path) -> None:
    file = {"driver": "file", "filename": str(path)}
    guest.qmp("blockdev-add", {"driver": "qcow2", "node-name": "copy", "file": file})
    copy = {"job-id": "copy", "sync": "full", "target": "copy"}
    guest.qmp("blockdev-mirror", {**copy, "device": guest.active_node(DISK)})
    until(lambda: _status(guest) == ["ready"])
    guest.qmp("job-complete", {"id": "copy"})
    until(lambda: _status(guest) == [])


def _status(guest: Machine) -> list[str]:
    jobs = guest.qmp("query-jobs")
    assert isinstance(jobs, list)
    return [one["status"] for one in jobs]
