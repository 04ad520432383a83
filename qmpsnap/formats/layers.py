"""One guest's disks with the format of every layer: the answer that all commands work from."""

from __future__ import annotations

from typing import Final

import msgspec

from qmpsnap.errors import Ambiguous, NotFound
from qmpsnap.formats.verdict import Evidence, Verdict
from qmpsnap.graph.files import OpenFile
from qmpsnap.graph.nodes import Device, Graph, Job, Node

Identity = tuple[str, int, int]
"""Kind (`file` or `device`), and two numbers that no other file of this host has."""

REPLACED: Final = "replaced"
"""The flag of a layer whose name does not lead to the file that QEMU has open."""
NOT_SEEN: Final = "not-seen"
"""The flag of a layer of which that cannot be told."""
TEMPORARY: Final = "temporary"
"""The flag of a layer that QEMU made for itself (`-snapshot`), and that has no name."""
NOT_HERE: Final = "not-here"
"""The flag of such a layer whose name leads to no file on this host."""


class DiskNotFound(NotFound):
    """The guest has no such disk."""

    msg = "there is no disk {self.wanted!r}; the guest has: {self.known_text}"
    remedy = "Name a disk by target, serial, device id or node; `qmpsnap disks` lists them."


class DiskAmbiguous(Ambiguous):
    """Two disks answer to this name, so neither is touched."""

    msg = "{self.wanted!r} names more than one disk: {self.known_text}"
    remedy = "Name the disk by its target or device id."


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a chain, its format, and who says so."""

    file: str
    path: str | None
    """Host file; None for a network protocol or a passed file descriptor."""
    protocol: str
    format: str | None
    verdict: Verdict
    node: str | None
    """Format node (or the protocol node in its place); None when only the XML was read."""
    virtual_size: int | None
    flags: tuple[str, ...]
    evidence: tuple[Evidence, ...]
    backing_name: str | None = None
    """As recorded in this layer's header; None when there is none, or it was not read."""
    backing_format: str | None = None
    """The same of the backing format: the word that stands there."""
    index: int | None = None
    """libvirt's number of this source."""
    top_node: str | None = None
    """The node that the layer above reads: `node`, or a filter on top of it."""
    protocol_node: str | None = None
    nodes: tuple[str, ...] = ()
    """Every node of this layer, each above what it reads: filters, format node, protocol node, …"""
    node_details: Node | None = None
    folder: str | None = None
    """Where the folder of its name leads, links followed; None where that was not looked at."""
    identity: Identity | None = None
    """What its name leads to on this host; None where that was not looked at, or is nothing."""
    has_subclusters: bool = False
    """Whether parts of a cluster of this qcow2 may be allocated (`extended_l2`)."""
    internal_snapshots: int = 0
    """How many it holds: by its node, or by its header where it has none."""
    is_read_twice: bool = False
    """Whether the guest's QEMU reads this very file by a node of another disk, or of none, too."""
    secret: str | None = None
    """UUID of libvirt's secret that this layer is encrypted with; None where it is not, or where that
    is not known."""
    sight: str | None = None
    """Why that is not, or not certainly, the file that QEMU has open; the flags say which."""


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """One disk of a guest, layers in chain order (active layer first); empty drive: no layers."""

    disk: str
    """Target (`vda`) under libvirt, else the device id."""
    serial: str | None
    qdev: str | None
    layers: tuple[Layer, ...]
    kind: str = "disk"
    """`disk`, `cdrom`, `floppy` or `lun`; on the direct road also `pflash`."""
    read_only: bool = False
    transient: bool = False
    """By libvirt's XML: what the guest writes is thrown away when it ends."""
    shareable: bool = False
    """By libvirt's XML: other guests write to it as well."""
    root: str | None = None
    """Node at the device; differs from the active layer's when a filter lies on top."""
    entry: str | None = None
    """The node that the device reads: the root, or a filter that a job has put over it."""
    xml_differs: str | None = None
    """Why libvirt's chain is another one than QEMU's, if it is; of a disk that is off, why the
    definition's is another one than that of the headers."""
    mirror: str | None = None
    files: tuple[OpenFile, ...] = ()
    """Every file that is reachable from this disk, those of the chain included."""
    nodes: frozenset[str] = frozenset()
    """Every node that is reachable from this disk, but for filters."""
    notes: tuple[str, ...] = ()
    """What could not be read of this disk, and why."""
    off: bool = False
    """No QEMU has it open: the guest's definition and the headers of the files were read."""

    @property
    def chain_text(self) -> str:
        """The chain as people read it, base first."""
        return " <- ".join(layer.file for layer in reversed(self.layers))

    @property
    def paths(self) -> tuple[str | None, ...]:
        """The chain as paths, active layer first."""
        return tuple(layer.path for layer in self.layers)

    @property
    def beyond_chain(self) -> tuple[OpenFile, ...]:
        """Files that are reachable from this disk and are no layer of its chain."""
        chain = {layer.path for layer in self.layers} | {layer.file for layer in self.layers}
        return tuple(file for file in self.files if not {file.path, file.name} & chain)

    @property
    def names(self) -> frozenset[str]:
        """All names by which a user may call this disk."""
        device = Device(device="", qdev=self.qdev, root=None).id
        nodes = [layer.node for layer in self.layers]
        names = (self.disk, self.serial, self.qdev, device, self.root, *nodes)
        return frozenset(name for name in names if name)


_OFF: Final = "the guest is off: formats by its definition and the headers of its files"


class Disks(msgspec.Struct, frozen=True, kw_only=True):
    """All disks of one guest at one moment."""

    guest: str | None
    disks: tuple[Disk, ...]
    jobs: tuple[Job, ...] = ()
    open_files: frozenset[str] = frozenset()
    """Host files that any node of the guest has open, on a disk or not."""
    notes: tuple[str, ...] = ()
    """What could not be read of all disks, and why: for example passthrough that is off."""
    besides: tuple[str, ...] = ()
    """What the guest keeps in files that are no disks, as far as that is seen: `nvram`, `TPM`."""
    graph: Graph | None = None
    """What the disks were read from; None when only the XML was read."""

    def disk(self, wanted: str) -> Disk:
        """
        Find a disk by target, serial, device id or node name; a target or device id comes first.

        Raises:
            DiskNotFound: None answers to it; the error names those that there are.
            DiskAmbiguous: More than one does.
        """
        found = [disk for disk in self.disks if wanted in disk.names]
        if len(found) > 1:
            found = [disk for disk in found if disk.disk == wanted] or found
        if len(found) > 1:
            raise DiskAmbiguous(wanted, tuple(disk.disk for disk in found))
        if not found:
            raise DiskNotFound(
                wanted,
                tuple(
                    disk.disk + (f" (serial {disk.serial})" if disk.serial else "")
                    for disk in self.disks
                ),
            )
        return found[0]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What there is to say of this reading, for people; of single disks with their names."""
        of_disks = tuple(f"{disk.disk}: {note}" for disk in self.disks for note in disk.notes)
        return (*((_OFF,) if self.off else ()), *self.notes, *of_disks)

    @property
    def off(self) -> bool:
        """Whether no QEMU has the disks open."""
        return any(disk.off for disk in self.disks)

    def readable(self) -> dict[str, str]:
        """
        Format by host path, of the layers whose content may be looked at.

        Not of those below a layer that QEMU opened by guessing: the guest may have written the
        header that names them.
        """
        found = {}
        for disk in self.disks:
            for layer in disk.layers:
                if layer.path is not None and layer.format is not None:
                    found[layer.path] = layer.format
                if "probed" in layer.flags:
                    break
        return found

    def stated(self) -> dict[str, str]:
        """Format by host path, of every layer whose format is stated."""
        return {
            layer.path: layer.format
            for disk in self.disks
            for layer in disk.layers
            if layer.path is not None and layer.format is not None
        }
