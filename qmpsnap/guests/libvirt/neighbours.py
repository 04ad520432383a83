"""
What the definitions of this libvirt name as their files, all the way down their chains.

A guest that is off has no process that could be seen; a running one may start from other files the
next time than it has open now.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from qmpsnap.formats.layers import Disk
from qmpsnap.formats.qcow2 import BadHeader
from qmpsnap.graph import xml
from qmpsnap.graph.chain import host_path
from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.files.neighbours import identity, layer_paths
from qmpsnap.guests.libvirt.door import call
from qmpsnap.monitor.virt import libvirt_module


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
        except (libvirt.libvirtError, xml.MalformedXml):
            continue  # undefined in between
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
    """The files of a chain by its headers, as far as each is stated to be qcow2 by the one above."""
    path, stated = (layers[0].path, layers[0].format) if layers else (None, None)
    seen = set()
    while path is not None and len(seen) < 10 ** 5:
        seen.add(path)
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
