"""
How a disk of the rig is described to QEMU: as a list of named nodes.

    vda-2-file ◄── vda-2-fmt ◄── vda-1-fmt ◄── vda-0-fmt ◄── device vda
                                     │             │
                                 vda-1-file    vda-0-file

Every node is named and every edge is given, as libvirt does it; nothing is opened because a header
says so. Layer 0 is the active one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Bus = Literal["virtio", "ide", "scsi"]

_DEVICES: Final[Mapping[Bus, str]] = {
    "virtio": "virtio-blk-pci",
    "ide": "ide-hd",
    "scsi": "scsi-hd",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskSpec:
    """One disk: its block nodes, and the device on top of them."""

    blockdevs: tuple[Mapping[str, object], ...]
    """`-blockdev` objects in an order in which they can be opened: lower layers first."""
    root: str
    """Name of the node that the device reads and writes."""
    id: str
    """qdev id of the device."""
    serial: str | None = None
    bus: Bus = "virtio"

    @property
    def qdev(self) -> str:
        """What `query-block` calls the device, and what HMP `qemu-io -d` understands."""
        return qdev(self.id, self.bus)

    def arguments(self) -> list[str]:
        """The disk as arguments of QEMU. A `scsi` disk expects a SCSI bus to be there."""
        arguments = []
        for blockdev in self.blockdevs:
            arguments += ["-blockdev", json.dumps(blockdev)]
        device = f"{_DEVICES[self.bus]},id={_quoted(self.id)},drive={_quoted(self.root)}"
        # Without it no NBD client could write beside the device, as `Machine.writer` does.
        device += ",share-rw=on"
        if self.serial is not None:
            device += f",serial={_quoted(self.serial)}"
        return [*arguments, "-device", device]


def qdev(id: str, bus: Bus) -> str:
    """What `query-block` calls the device `id`: virtio-blk keeps its disk in a child object."""
    return f"/machine/peripheral/{id}/virtio-backend" if bus == "virtio" else id


def raw_disk(
    path: str | os.PathLike[str],
    id: str,
    serial: str | None = None,
    *,
    raw_node: bool = True,
) -> DiskSpec:
    """
    Describe a disk of one raw file.

    Args:
        path: The file; must be there.
        id: qdev id, and the first part of all node names.
        serial: Serial number that the guest sees; None for none.
        raw_node: False leaves the raw node out, as libvirt 11.3 does over QEMU 9.0: the device
            then stands on the protocol node.
    """
    return qcow2_chain([(path, "raw")], id, serial, raw_node=raw_node)


def qcow2_chain(
    files: Sequence[tuple[str | os.PathLike[str], str]],
    id: str,
    serial: str | None = None,
    *,
    raw_node: bool = True,
) -> DiskSpec:
    """
    Describe a disk of several layers.

    Args:
        files: (file, format) of each layer in chain order, the active one first. All but the
            last are of a format that can have a backing file.
        id: qdev id, and the first part of all node names: `<id>-<layer>-file` and
            `<id>-<layer>-fmt`.
        serial: Serial number that the guest sees; None for none.
        raw_node: False leaves the raw node of a raw base out.
    """
    blockdevs: list[Mapping[str, object]] = []
    below: str | None = None
    for layer in reversed(range(len(files))):
        path, format = files[layer]
        lower = layer > 0
        node = f"{id}-{layer}-file"
        # Auto: a block job reopens the layer below for writing, and no other program does.
        file = {"driver": "file", "filename": str(Path(path).absolute()), "auto-read-only": True}
        if format == "raw" and not raw_node:
            blockdevs.append({**file, "node-name": node, "read-only": lower})
        else:
            blockdevs.append({**file, "node-name": node})
            over: dict[str, object] = {"driver": format, "file": node, "read-only": lower}
            if format != "raw":
                over["backing"] = below
            node = f"{id}-{layer}-fmt"
            blockdevs.append({**over, "node-name": node})
        below = node
    if below is None:
        raise ValueError("a disk has at least one layer")
    return DiskSpec(blockdevs=tuple(blockdevs), root=below, id=id, serial=serial)


def _quoted(value: str) -> str:
    """A value in QEMU's `key=value,…` lists: commas are doubled."""
    return value.replace(",", ",,")
