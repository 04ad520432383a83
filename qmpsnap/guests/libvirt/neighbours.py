"""
Who else uses the files of a chain, by what the guests of this libvirt name, all the way down.

A guest that is off has no process that could be seen; a running one may start from other files the
next time than it has open now.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final

from msgspec.structs import replace

from qmpsnap.formats.layers import Disk
from qmpsnap.graph import xml
from qmpsnap.guests.files.around import around
from qmpsnap.guests.files.census import Use
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.neighbours import layer_paths
from qmpsnap.guests.libvirt.door import call
from qmpsnap.guests.libvirt.named import Names
from qmpsnap.guests.libvirt.snapshots import recorded_snapshots
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guards import Surroundings

LIST_TIMEOUT_S: Final = 5.0
"""libvirt lists all guests or none: it waits for one that is being ended (seen for minutes)."""
ASK_TIMEOUT_S: Final = 60.0
"""For the XMLs of all of them; a hundred take 0.1 s."""


def surroundings_of(
    domain: Any,
    disk: Disk,
    left: Collection[str] | None,
    *,
    runs: bool,
    qemu: int | None = None,
) -> Surroundings:
    """
    What is around a disk of a guest of libvirt; arguments as `around` takes them.

    Raises:
        CommandFailed, LostInMidCommand: libvirt does not tell.
        MalformedXml: What it tells of its snapshots cannot be read.
    """
    seen = around(disk, left, runs=runs, qemu=qemu)
    readers, notes = dict(seen.readers), seen.notes
    try:
        listed = in_time(lambda: _listed(domain), LIST_TIMEOUT_S)
        defined, unknown = in_time(lambda: named_by(listed, domain, disk, left), ASK_TIMEOUT_S)
    except MonitorBusy:
        stuck = "libvirt does not list its guests: one is stuck"
        # A file that has left is removed next: then who cannot be asked counts as a user of it.
        defined = {} if left is None else {path: (stuck,) for path in layer_paths(disk, left)}
        unknown = (stuck,)
    notes = (*notes, *unknown)
    for path, users in defined.items():
        readers[path] = (*readers.get(path, ()), *users)
    recorded = call(domain, "virDomainListAllSnapshots", lambda: recorded_snapshots(domain))
    return replace(
        seen,
        readers=readers,
        recorded=recorded,
        checkpoints=_checkpoints(domain),
        notes=notes,
    )


def _checkpoints(domain: Any) -> frozenset[str]:
    """
    Names of libvirt's checkpoints, whose bitmaps it merges into the file that a merge writes.

    Source: qemuBlockBitmapsHandleCommitFinish(), qemu_block.c; libvirt 6.0 and later.
    """
    try:
        return frozenset(one.getName() for one in domain.listAllCheckpoints())
    except (libvirt_module().libvirtError, AttributeError):
        return frozenset()  # older than checkpoints


def _listed(domain: Any) -> Sequence[Any]:
    listed = call(domain, "virConnectListAllDomains", domain.connect().listAllDomains)
    return tuple(listed)


def named_by(
    listed: Iterable[Any], domain: Any, disk: Disk, left: Collection[str] | None
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    Find which guests name a layer of a disk, but for the definition that this chain is of.

    Files are compared by device and inode: the same file may have many names.

    Args:
        listed: The guests.
        domain: The guest that the disk is of.
        disk: With host files.
        left: Those that have left its chain: then its own definition counts as well, which must
            not name them any more.

    Returns:
        Descriptions by path of the layer, and what could not be looked at.
    """
    libvirt, own = libvirt_module(), domain.UUIDString()
    names = Names(domain.connect())
    perhaps: list[str] = []
    for other in listed:
        name = other.name()
        try:
            if other.UUIDString() != own:
                names.ask(other)
            elif other.isPersistent():
                _ask_own(names, other, disk, left)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:  # undefined in between
                perhaps.append(f"guest {name}, perhaps: {error}")
        except xml.MalformedXml as error:
            perhaps.append(f"guest {name}, perhaps: {error}")  # whatever it names
    found = {}
    for path in layer_paths(disk, left):
        users = names.uses.get(identity(path) or path, ())
        who = (*dict.fromkeys(use.who for use in users), *perhaps)
        if who:
            found[path] = who
    return found, _unfollowed(names)


def _ask_own(names: Names, domain: Any, disk: Disk, left: Collection[str] | None) -> None:
    """
    Take the guest's own definition, but for this very disk while the chain is its own.

    Raises:
        libvirtError, MalformedXml: As `Names.ask`.
    """
    text = domain.XMLDesc(libvirt_module().VIR_DOMAIN_XML_INACTIVE)
    for one in xml.parse(text).disks:
        if left is not None or not _is_same(one, disk):
            who = f"the guest's own definition, as {one.target}"
            names.take_disk(one, Use(by="guest", who=who))


def _unfollowed(names: Names) -> tuple[str, ...]:
    """One note for all: an unprivileged user may look at hardly any image of another guest."""
    guests = sorted({use.who for use, _ in names.gaps})
    if not guests:
        return ()
    some, more = ", ".join(guests[:3]), len(guests) - 3
    told = f"{some} and {more} more" if more > 0 else some
    return (f"not all files of {told} are known: run as root, or see `qmpsnap orphans`",)


def _is_same(defined: xml.XmlDisk, disk: Disk) -> bool:
    """Whether a disk of the definition is this one, with the active file that it has now."""
    if defined.target != disk.disk or not defined.layers:
        return False
    named, now = defined.layers[0].path, disk.layers[0].path
    if named is None or now is None:
        return True
    return (identity(named) or named) == (identity(now) or now)
