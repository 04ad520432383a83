"""Another guest of a libvirt, which is off, and the ways in which it may need a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any, Final

from qmpsnap.monitor.virt import libvirt_module
from tests.rig import images
from tests.rig.rig import DISK, SIZE
from tests.rig.share import write_qcow2

WAYS: Final = (
    "the file itself",
    "two overlays",
    "another name",
    "a header without a format",
    "a name with dots behind a link",
    "a data file",
    "a tree of options",
    "a filter before the name",
    "an argument for QEMU",
    "options for QEMU",
    "a snapshot's record",
    "a saved memory",
)
"""The last two name it in no definition."""
_DOMAIN: Final = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>{disk}</devices>{more}
</domain>
"""
_UUID: Final = "5d1f3c1e-0000-4000-8000-000000000009"


@contextmanager
def another_guest(connection: Any, path: Path, format_: str, way: str) -> Iterator[str]:
    """
    Define it for the length of a block.

    Args:
        connection: A `virConnect`.
        path: The file, which lies in the folder of the test.
        format_: Its format.
        way: One of `WAYS`.

    Yields:
        How the guest, or what it is named by, has to be described.
    """
    libvirt = libvirt_module()
    name, folder = f"other-{path.parent.name}", path.parent / "others"
    folder.mkdir()
    more, top = "", (folder / "top", "qcow2")
    match way:
        case "the file itself":
            top = path, format_
        case "a snapshot's record" | "a saved memory":
            images.create_qcow2(top[0], SIZE, str(path), format_)
        case "two overlays":
            images.create_qcow2(folder / "middle", SIZE, str(path), format_)
            images.create_qcow2(top[0], SIZE, "middle", "qcow2")
        case "another name":
            top = folder / "link", format_
            top[0].hardlink_to(path)
        case "a header without a format":
            images.create_qcow2(folder / "middle", SIZE, str(path), format_)
            write_qcow2(top[0], "middle")
        case "a name with dots behind a link":
            (folder / "away" / "in").mkdir(parents=True)
            (folder / "away" / path.name).hardlink_to(path)
            (folder / "link").symlink_to(folder / "away" / "in")
            write_qcow2(top[0], f"link/../{path.name}", format_)
        case "a data file":
            write_qcow2(top[0], data_file=str(path))
        case "a tree of options":
            file = {"driver": "file", "filename": str(path)}
            child = {"driver": format_, "file": file}
            tree = {"driver": "quorum", "vote-threshold": 1, "children": [child]}
            write_qcow2(top[0], f"json:{json.dumps(tree)}", "quorum")
        case "a filter before the name":
            write_qcow2(top[0], f"blkdebug::{path}", format_)
        case "options for QEMU":
            images.create_qcow2(folder / "an overlay", SIZE, str(path), format_)
            file = {"driver": "file", "filename": str(folder / "an overlay")}
            options = json.dumps({"driver": "qcow2", "node-name": "more", "file": file})
            argument = f"<qemu:arg value='{escape(options)}'/>"
            more = f"<qemu:commandline><qemu:arg value='-blockdev'/>{argument}</qemu:commandline>"
        case "an argument for QEMU":
            argument = f"<qemu:arg value='file={path},format={format_},if=virtio'/>"
            more = f"<qemu:commandline><qemu:arg value='-drive'/>{argument}</qemu:commandline>"
        case _:
            raise AssertionError(way)
    disk = (
        f"<disk type='file' device='disk'><driver name='qemu' type='{top[1]}'/>"
        f"<source file='{top[0]}'/><target dev='{DISK}' bus='virtio'/></disk>"
    )
    text = _DOMAIN.format(name=name, uuid=_UUID, disk="" if more else disk, more=more)
    domain = connection.defineXML(text)
    who = f"guest {name}, which is off"
    try:
        if way == "a snapshot's record":
            overlay = f"<disk name='{DISK}'><source file='{folder / 's1'}'/></disk>"
            record = f"<domainsnapshot><name>s1</name><disks>{overlay}</disks></domainsnapshot>"
            domain.snapshotCreateXML(record, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
            connection.defineXML(_DOMAIN.format(name=name, uuid=_UUID, disk="", more=""))
            who = f"snapshot s1 of guest {name}"
        if way == "a saved memory":
            domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
            domain.managedSave()
            connection.defineXML(_DOMAIN.format(name=name, uuid=_UUID, disk="", more=""))
            who = f"the saved memory of guest {name}"
        yield who
    finally:
        domain.undefineFlags(
            libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
            | libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        )
