"""
Who else uses the files of a chain, by what the definitions of this libvirt name, all the way down.

A guest that is off has no process that could be seen; a running one may start from other files the
next time than it has open now.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from qmpsnap.formats.layers import Disk
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.graph import xml
from qmpsnap.graph.chain import host_path
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.neighbours import layer_paths, surroundings
from qmpsnap.guests.libvirt.door import call
from qmpsnap.guests.libvirt.snapshots import recorded_snapshots
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import libvirt_module
from qmpsnap.operations.guards import Surroundings

LIST_TIMEOUT_S: Final = 5.0
"""libvirt lists all guests or none: it waits for one that is being ended (seen for minutes)."""


def surroundings_of(
    domain: Any,
    disk: Disk,
    left: Collection[str] | None,
    *,
    runs: bool,
    qemu: int | None = None,
) -> Surroundings:
    """
    What is around a disk of a guest of libvirt; arguments as `surroundings` takes them.

    Raises:
        CommandFailed, LostInMidCommand: libvirt does not tell.
        MalformedXml: What it tells of its snapshots cannot be read.
    """
    seen = surroundings(disk, left, runs=runs, qemu=qemu)
    readers, notes = dict(seen.readers), seen.notes
    try:
        defined = in_time(lambda: defined_users(domain, disk, left), LIST_TIMEOUT_S)
    except MonitorBusy:
        defined = {}
        notes = (*notes, "libvirt does not list its guests: one is stuck")
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


def defined_users(
    domain: Any, disk: Disk, left: Collection[str] | None
) -> dict[str, tuple[str, ...]]:
    """
    Find the definitions that name a layer of a disk, but for the one that this chain is.

    Files are compared by device and inode: the same file may have many names.

    Args:
        domain: The guest that the disk is of.
        disk: With host files.
        left: Those that have left its chain: then its own definition counts as well, which must
            not name them any more.

    Returns:
        Descriptions by path of the layer.

    Raises:
        CommandFailed, LostInMidCommand: They could not be listed.
    """
    libvirt, connection, own = libvirt_module(), domain.connect(), domain.UUIDString()
    flags = libvirt.VIR_CONNECT_LIST_DOMAINS_PERSISTENT
    listed = call(domain, "virConnectListAllDomains", lambda: connection.listAllDomains(flags))
    wanted = {identity(path) or path: path for path in layer_paths(disk, left)}
    found: dict[str, list[str]] = {}
    for other in listed:
        try:
            defined = xml.parse(other.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
            active = bool(other.isActive())
        except libvirt.libvirtError:
            continue  # undefined in between
        except xml.MalformedXml as error:
            # Whatever it names, it may be any of these.
            perhaps = f"guest {other.name()}, perhaps: {error}"
            for any_of in wanted.values():
                found.setdefault(any_of, []).append(perhaps)
            continue
        of_own = other.UUIDString() == own
        for one in defined.disks:
            if of_own and left is None and _is_same(one, disk):
                continue
            who = _description(defined.name, one.target, active=active, own=of_own)
            for path in _chain(one.layers):
                layer = wanted.get(identity(path) or path)
                if layer is not None and who not in found.setdefault(layer, []):
                    found[layer].append(who)
    return {path: tuple(users) for path, users in found.items()}


def _is_same(defined: xml.XmlDisk, disk: Disk) -> bool:
    """Whether a disk of the definition is this one, with the active file that it has now."""
    if defined.target != disk.disk or not defined.layers:
        return False
    named, now = defined.layers[0].path, disk.layers[0].path
    if named is None or now is None:
        return True
    return (identity(named) or named) == (identity(now) or now)


def _description(guest: str, target: str, *, active: bool, own: bool) -> str:
    if own:
        return f"the guest's own definition, as {target}"
    return f"the definition of guest {guest}" if active else f"guest {guest}, which is off"


def _chain(layers: Sequence[xml.XmlLayer]) -> Iterator[str]:
    """
    The files of a chain: those that a definition names, and what lies below each by the headers.

    The next start goes by the definition as far as that goes; headers that say otherwise may be
    gone by then, or the definition may.
    """
    seen: set[tuple[str, str | None]] = set()
    for layer in layers:
        yield from _by_headers(layer.path, layer.format, seen)


def _by_headers(
    path: str | None, stated: str | None, seen: set[tuple[str, str | None]]
) -> Iterator[str]:
    """A file and all below it, as far as each is stated to be qcow2 by the one above."""
    while path is not None and (path, stated) not in seen:
        seen.add((path, stated))
        yield path
        if stated != "qcow2":
            return
        try:
            header = read_header(path)
        except (OSError, BadHeader):
            return
        below = host_path(header.backing_file) if header.backing_file is not None else None
        stated = header.backing_format
        path = below and os.path.normpath(os.path.join(os.path.dirname(path), below))
