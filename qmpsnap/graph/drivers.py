"""
Which block drivers are filters, formats or protocols.

Source: QEMU `block/*.c`, the fields `is_filter`, `is_format` and `protocol_name` of each
`BlockDriver`, read in 5.2, 7.2 and 10.0. The monitor does not tell them, so they are copied
here; a driver that is not listed is `UNKNOWN` and states no format.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

_FILTERS: Final = """
    backup-top blkdebug blklogwrites blkreplay blkverify commit_top compress copy-before-write
    copy-on-read mirror_top preallocate replication throttle
"""
_FORMATS: Final = "bochs cloop dmg luks parallels qcow qcow2 qed raw vdi vhdx vmdk vpc"
_PROTOCOLS: Final = """
    file ftp ftps gluster host_cdrom host_device http https io_uring iscsi iser nbd nfs null-aio
    null-co nvme nvme-io_uring rbd ssh virtio-blk-vfio-pci virtio-blk-vhost-user
    virtio-blk-vhost-vdpa vvfat
"""


class DriverKind(Enum):
    """What a node of this driver is in a chain."""

    FILTER = auto()
    """Passes data on; never a layer of its own."""
    FORMAT = auto()
    PROTOCOL = auto()
    """In the place of a format it means raw: the bytes are taken as they are."""
    UNKNOWN = auto()
    """Neither (quorum, snapshot-access), or not known here: states nothing."""


_KINDS: Final = {
    name: kind
    for kind, names in (
        (DriverKind.FILTER, _FILTERS),
        (DriverKind.FORMAT, _FORMATS),
        (DriverKind.PROTOCOL, _PROTOCOLS),
    )
    for name in names.split()
}


def kind_of(driver: str) -> DriverKind:
    """Classify a driver name as it stands in `drv`."""
    return _KINDS.get(driver, DriverKind.UNKNOWN)


def format_meant_by(driver: str) -> str | None:
    """
    Return the format that a driver in the place of a format stands for.

    A protocol there means raw: libvirt 11.3 and later attaches raw files without a raw node, and
    QEMU then writes the protocol's name into headers. None where the driver states nothing.
    """
    match kind_of(driver):
        case DriverKind.FORMAT:
            return driver
        case DriverKind.PROTOCOL:
            return "raw"
        case _:
            return None
