"""
Names of files and snapshots on a chain.

Cinder's rule, which ours follows for people too: the overlay that is made for snapshot S of a
volume is `<volume>.<S>`; it holds what was written *after* S. The data of S is the layer below.
What other tools made (`snap1.qcow2`) has a name as well, without the ending that tells a format.
"""

from __future__ import annotations

import os.path
import re
from typing import Final

import msgspec

from qmpsnap.errors import Ambiguous, NotFound, Refused
from qmpsnap.formats.layers import Disk, Layer
from qmpsnap.operations.requests import BadFileName

_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}", re.ASCII)
_VOLUME = re.compile(r"volume-(?P<id>[^.]+)")
_ENDINGS: Final = frozenset(
    ["img", "qcow", "qcow2", "qed", "raw", "vdi", "vhd", "vhdx", "vmdk", "vpc"]
)
"""What other tools put at the end of a file's name; it tells snapshots apart as little as a
format does."""


class BadSnapshotName(Refused):
    """A snapshot name that would not make a safe file name."""

    msg = "{self.name!r} cannot name a snapshot"
    remedy = "Use letters, digits, '-' and '_', beginning with a letter or digit."

    name: str


class SnapshotExists(Refused):
    """The file that a new snapshot would create is already in a chain of the guest."""

    msg = "snapshot {self.name!r}: its file {self.file!r} is in use in the chain of {self.disk}"
    remedy = "Give another name, or none: then the time of day names it. See `qmpsnap list`."

    name: str
    file: str
    disk: str


class SnapshotNotFound(NotFound):
    """There is no snapshot of this name on the disk."""

    msg = "disk {self.disk} has no snapshot {self.wanted!r}; it has: {self.known_text}"
    remedy = "Give one of these, or see `qmpsnap list`."

    disk: str


class SnapshotAmbiguous(Ambiguous):
    """Two layers of the chain end in this name."""

    msg = "disk {self.disk} has more than one snapshot {self.wanted!r}: {self.known_text}"
    remedy = "Give one of these file names."

    disk: str


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One snapshot of a disk."""

    name: str
    """No other snapshot of the disk has it: its own, or the name of its overlay."""
    overlay: Layer
    """Holds what was written after the snapshot."""
    data: Layer
    """What the disk held when the snapshot was taken, with all layers below."""


def snapshots(disk: Disk) -> tuple[Snapshot, ...]:
    """Snapshots of a disk, newest first: one for each layer that has another one below it."""
    pairs = tuple(zip(disk.layers, disk.layers[1:], strict=False))
    names = [_own_name(disk, overlay) for overlay, _ in pairs]
    return tuple(
        Snapshot(name=name if names.count(name) == 1 else overlay.file, overlay=overlay, data=data)
        for name, (overlay, data) in zip(names, pairs, strict=True)
    )


def _own_name(disk: Disk, overlay: Layer) -> str:
    """What is left of an overlay's name without the volume's, and without an ending."""
    volume = _volume_of(disk, overlay)
    own = overlay.file.removeprefix(f"{volume.file}.")
    front, _, end = own.rpartition(".")
    name = (front if front and end.lower() in _ENDINGS else own).rpartition(".")[2]
    return name or overlay.file  # `dot.` has nothing behind its last dot


def _volume_of(disk: Disk, overlay: Layer) -> Layer:
    """
    The lowest layer that an overlay is named after, in the same folder; else the overlay itself.

    A base whose name is another one may be a template, which many guests rest on.
    """
    folder = folder_of(overlay)
    return next(
        (
            layer
            for layer in reversed(disk.layers)
            if folder_of(layer) == folder and overlay.file.startswith(f"{layer.file}.")
        ),
        overlay,
    )


def overlay_name(disk: Disk, snapshot: str) -> str:
    """
    Name of the overlay for a new snapshot: `<volume>.<snapshot>`.

    The volume is the file that the active one is named after, where it has come by snapshots of
    this name; else the active file: what it rests on may be a template of many guests.

    Raises:
        BadSnapshotName: `snapshot` would not make a safe file name.
    """
    check_name(snapshot)
    return f"{_volume_of(disk, disk.layers[0]).file}.{snapshot}"


def check_name(snapshot: str) -> None:
    """
    See that a name can be that of a snapshot.

    Raises:
        BadSnapshotName: It cannot.
    """
    if not _SNAPSHOT.fullmatch(snapshot):
        raise BadSnapshotName(snapshot)


def find_snapshot(disk: Disk, name: str) -> Snapshot:
    """
    Find a snapshot by its name, or by the name of its overlay.

    Raises:
        SnapshotNotFound: No layer of the chain belongs to it.
        SnapshotAmbiguous: More than one does.
    """
    known = snapshots(disk)
    found = [one for one in known if name in (one.name, one.overlay.file)]
    if found:
        return found[0]
    alike = tuple(one.overlay.file for one in known if _own_name(disk, one.overlay) == name)
    if alike:
        raise SnapshotAmbiguous(name, alike, disk.disk)
    raise SnapshotNotFound(name, tuple(one.name for one in known), disk.disk)


def tidy(path: str) -> str:
    """
    A path without doubled slashes and `.`, to be compared with others as text.

    `..` stays: behind a symbolic link it leads elsewhere than the text says.
    """
    parts = (part for part in path.split("/") if part not in ("", "."))
    return ("/" if path.startswith("/") else "") + "/".join(parts)


def folder_of(layer: Layer) -> str:
    """Folder of a layer's file: where it really is, or by its text where nobody has looked."""
    return layer.folder or tidy(os.path.dirname(layer.path or ""))


def spellings(layer: Layer) -> frozenset[str]:
    """The names of a layer's file: as QEMU has it, and in the folder as it really is."""
    return frozenset([tidy(layer.path or ""), tidy(f"{folder_of(layer)}/{layer.file}")])


def backing_name(relative: str) -> str:
    """
    A relative name as it may stand in a header.

    What has a colon before its first slash is an address for QEMU (`nbd:…`, `json:…`), whatever
    file has this name (block.c, path_has_protocol()).
    """
    return f"./{relative}" if ":" in relative.partition("/")[0] else relative


def name_beside(above: Layer, below: Layer) -> str:
    """The name for `below` in the header of a new overlay: relative where they share a folder."""
    if folder_of(above) == folder_of(below):
        return backing_name(below.file)
    return below.path or below.file


def name_of_base(above: Layer, base: Layer) -> str:
    """
    The name for `base` in the header of `above`: relative where the present one is.

    Bare names keep a volume usable when its share is mounted elsewhere (LP 1438027).
    """
    present = above.backing_name
    if present is None or present.startswith(("/", "json:")) or above.path is None:
        return base.path or base.file
    # Between real folders: behind a link, `..` leads elsewhere than the text says.
    return backing_name(os.path.relpath(f"{folder_of(base)}/{base.file}", folder_of(above)))


def check_belongs(new_file: str, disk: Disk, others: tuple[Disk, ...]) -> None:
    """
    Refuse a new file that is named as if it belonged to another volume.

    Which names Cinder gives is configurable (`volume_name_template`), and after a migration a
    volume's files carry another id than the volume; so what is refused is what is known to be
    another volume's: the prefix of another disk of this guest, or Cinder's default pattern with
    an id that is neither this volume's nor in the names of its chain.

    Raises:
        BadFileName: It belongs to another volume.
    """
    own = {layer.file.partition(".")[0] for layer in disk.layers}
    prefix = new_file.partition(".")[0]
    if prefix in own or (disk.serial and prefix == f"volume-{disk.serial}"):
        return
    foreign = {layer.file.partition(".")[0] for other in others for layer in other.layers}
    if prefix in foreign or _VOLUME.fullmatch(prefix):
        example = f"{disk.layers[-1].file}.<snapshot id>"
        raise BadFileName("new_file", new_file, "it is another volume's name", example)
