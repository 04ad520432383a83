"""
Whether an operation on a disk may be thought of at all. Pure.

What passes is a `Volume`: each of its layers has a path on this host and a format that is certain.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Final

from qmpsnap.errors import Refused
from qmpsnap.formats.layers import NOT_HERE, NOT_SEEN, REPLACED, TEMPORARY, Disk, Layer
from qmpsnap.formats.verdict import Verdict


class DiskUnsuitable(Refused):
    """A disk that snapshots cannot be taken of."""

    msg = "no snapshot operation on disk {self.disk}: {self.reason}"
    remedy = "{self.advice}"

    disk: str
    reason: str
    advice: str


class FormatUncertain(Refused):
    """The format of a layer is not known, or the witnesses contradict each other."""

    msg = "the format of {self.file} is not certain: {self.reason}"
    remedy = (
        "Find out with `qmpsnap chain` who says what; nothing is done on a chain whose formats "
        "are not certain."
    )

    file: str
    reason: str


class FileReplaced(Refused):
    """
    A layer's name does not lead to the file that QEMU has open: it was replaced or unlinked.

    Whatever goes by the name (an overlay's header, the next start, whoever removes it) would mean
    another file, and the one that QEMU has may have no name any more.
    """

    msg = "{self.path} is not the file that the guest has open: {self.reason}"
    remedy = (
        "Keep the guest running: it still has its file. If that was renamed, give it its name back. "
        "If it has no name any more, copy the whole disk into a new file before the guest ends "
        "(`virsh blockcopy`, QMP `blockdev-mirror`)."
    )

    path: str
    reason: str


class FileNotHere(Refused):
    """A layer's name leads to no file on this host, and what QEMU has open cannot be seen."""

    msg = "{self.reason}: {self.path}"
    remedy = "Run qmpsnap where QEMU runs, and where its files have the names that QEMU knows."

    path: str
    reason: str


_FLAGS: Final = {
    "unreadable": (
        "is a node that QEMU cannot describe any more: its image, or one above it, is corrupt",
        "Shut the guest down, and look at the disk's images with `qemu-img check -f FORMAT`.",
    ),
    "inactive": (
        "is not this QEMU's to write: a migration has given the images to another one, or it has not "
        "taken them yet (a saved guest that was restored, and is paused)",
        "Work on the guest where it runs. If that is here, resume it (QMP `cont`, `virsh resume`): it "
        "takes the images then.",
    ),
    "encrypted": (
        "is encrypted",
        "A chain is worked on where libvirt runs the guest and names a secret for each layer, all "
        "of them qcow2 with LUKS inside. Else what is encrypted would be written in plain.",
    ),
    "slice": (
        "is a part of a larger file (offset, size)",
        "A header cannot record that, so the next start would read the wrong part.",
    ),
    "two-formats": (
        "is opened by two formats, one over the other (raw over qcow2, for example)",
        "A header records one format, so the next start would read other bytes. Start the guest with "
        "one format node for each file.",
    ),
    TEMPORARY: (
        "is a temporary file: QEMU throws away what the guest writes to it (`-snapshot`)",
        "Start the guest without `-snapshot` (`snapshot=on` of a drive).",
    ),
    "data-file": (
        "keeps its data in another file (data-file)",
        "Convert the image to one file first.",
    ),
}
"""Layers that no operation goes near: why, and what to do."""


class VolumeLayer(Layer, frozen=True, kw_only=True):
    """A layer that operations may work with."""

    path: str
    """Absolute."""
    format: str
    """Certain."""


class Volume(Disk, frozen=True, kw_only=True):
    """A disk that operations may work on."""

    layers: tuple[VolumeLayer, ...]
    """At least one."""


def whole_pull(disk: Disk) -> str:
    """
    How to pull the whole chain: the way out where a commit would write what others use.

    By a snapshot's name only the last one that is left can be pulled.
    """
    two = len(disk.layers) == 2
    how = "; `--method pull` does it" if two else ", which deletes all its snapshots"
    return f"Pull the whole chain (`volume-snapshot-delete` with both names null{how})"


def usable(disk: Disk) -> Volume:
    """
    Return the disk as a volume, or refuse what is unsuitable or not known well enough.

    Raises:
        DiskUnsuitable, FormatUncertain: With the reason and the way out.
    """

    def unsuitable(reason: str, advice: str) -> DiskUnsuitable:
        return DiskUnsuitable(disk.disk, reason, advice)

    if disk.kind in ("cdrom", "floppy", "pflash"):
        raise unsuitable(f"it is a {disk.kind}", "Choose a hard disk; see `qmpsnap disks`.")
    if not disk.layers:
        raise unsuitable("the drive is empty", "Insert a medium, or choose another disk.")
    if disk.read_only:
        raise unsuitable("it is read-only", "A guest that cannot write needs no snapshot.")
    if disk.xml_differs is not None and disk.off:
        raise unsuitable(
            f"its definition and the headers of its files disagree ({disk.xml_differs})",
            "The next start obeys the definition. Find out which is right: then take the "
            "`<backingStore>` out of the definition (`virsh edit`), or correct the header "
            "(`qemu-img rebase -u -f qcow2 -b BACKING -F FORMAT OVERLAY`).",
        )
    if disk.transient:
        raise unsuitable(
            "it is transient: what the guest writes is thrown away when it ends",
            "Take `<transient/>` out of its definition (`virsh edit`), and start the guest again.",
        )
    if disk.shareable:
        raise unsuitable(
            "it is shareable, and an overlay cannot be shared",
            "When no other guest uses it, take `<shareable/>` out of its definition (`virsh edit`), "
            "and start the guest again.",
        )
    if disk.xml_differs is not None:
        raise unsuitable(
            f"libvirt and QEMU have different chains ({disk.xml_differs})",
            "Somebody changed the chain behind libvirt's back; restart the guest with the right "
            "files before anything else.",
        )
    for above, layer in pairwise(disk.layers) if disk.off else ():
        if layer.path is None and _leads_away(above.backing_name):
            raise unsuitable(
                f"{layer.file} lies in another folder than {above.file}, whose header alone names "
                "it, and of a guest that is off no header is followed out of its folder",
                "If that file is meant, have the definition name it as well, in the disk (`virsh "
                "edit`): `<backingStore type='file'><format type='FORMAT'/><source file='FILE'/>"
                "</backingStore>`. Or start the guest.",
            )
    encrypted = _is_encrypted_throughout(disk)
    layers = tuple(_usable(layer, disk.disk, encrypted) for layer in disk.layers)
    names = [layer.file for layer in layers]
    if len(set(names)) != len(names):
        raise unsuitable(
            "two layers of its chain have the same file name", "Name the layers differently."
        )
    return Volume(**{**_values(disk), "layers": layers})


def _leads_away(name: str | None) -> bool:
    """Whether a header names a file, which then lies in another folder, and not an address."""
    return name is not None and ":" not in name.partition("/")[0]


def _is_encrypted_throughout(disk: Disk) -> bool:
    """
    Whether every layer is qcow2 with LUKS inside that a QEMU has open, with a secret of libvirt's.

    Whatever is moved from one of them to another is encrypted there too.
    """
    return not disk.off and all(
        layer.format == "qcow2" and "encrypted" in layer.flags and layer.secret is not None
        for layer in disk.layers
    )


def _usable(layer: Layer, disk: str, encrypted: bool) -> VolumeLayer:
    if REPLACED in layer.flags:
        raise FileReplaced(layer.path or layer.file, layer.sight or "")
    if NOT_HERE in layer.flags:
        raise FileNotHere(layer.path or layer.file, layer.sight or "")
    for flag, (reason, advice) in _FLAGS.items():
        if flag in layer.flags and not (flag == "encrypted" and encrypted):
            raise DiskUnsuitable(disk, f"{layer.file} {reason}", advice)
    if layer.verdict is Verdict.UNKNOWN or layer.format is None:
        raise FormatUncertain(layer.file, "nobody states it")
    if layer.verdict is Verdict.CONFLICT:
        said = ", ".join(f"{one.witness} says {one.format}" for one in layer.evidence)
        raise FormatUncertain(layer.file, said)
    if "probed" in layer.flags and layer.format != "raw":
        # An overlay would record for good what the guest may have written into a raw disk.
        raise FormatUncertain(layer.file, f"QEMU guessed {layer.format} from its bytes")
    if layer.path is None:
        reason, advice = "not a file on this host", "Only chains of local files can be changed."
        raise DiskUnsuitable(disk, f"{layer.file} is {reason}", advice)
    if not layer.path.startswith("/"):
        raise DiskUnsuitable(
            disk,
            f"QEMU knows {layer.path} by a relative name only",
            "Start the guest with absolute file names.",
        )
    return VolumeLayer(**_values(layer))


def on_the_same_node(disk: Disk, others: Iterable[Disk]) -> tuple[str, ...]:
    """
    What is said of a disk whose node is another device's as well: what is done is done to both.

    A guest that is off has no nodes: those of its disks are opened one disk at a time, by the same
    names.

    Args:
        disk: The disk.
        others: All disks of the guest.
    """
    names = [
        other.disk
        for other in others
        if other.disk != disk.disk and other.root is not None and other.root == disk.root
    ]
    if not names or disk.off:
        return ()
    return (f"{', '.join(names)} and {disk.disk} are on one node: this changes all of them",)


def unseen(disk: Disk) -> tuple[str, ...]:
    """What a result says of a disk of which it cannot be seen which files QEMU has open."""
    why = dict.fromkeys(layer.sight for layer in disk.layers if NOT_SEEN in layer.flags)
    return tuple(
        f"whether the files of {disk.disk} are those that the guest has open could not be seen "
        f"({one}): no file is removed"
        for one in why
    )


def _values(report: Disk | Layer) -> dict[str, Any]:
    return {field: getattr(report, field) for field in report.__struct_fields__}
