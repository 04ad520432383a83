"""
Snapshots that libvirt keeps a record of: taken without NO_METADATA, by virsh or a manager.

Ours leave no record. A record that names files which have been merged keeps the guest from being
undefined, and libvirt 9.0 cannot delete such a snapshot ("could not find base disk source").
"""

from __future__ import annotations

from typing import Any

from qmpsnap.graph import xml


def recorded_snapshots(domain: Any) -> dict[str, tuple[str, ...]]:
    """
    Names of a domain's snapshots by the path of their overlay.

    Raises:
        libvirtError: libvirt does not tell.
        MalformedXml: What it tells cannot be read.
    """
    found: dict[str, tuple[str, ...]] = {}
    for one in domain.listAllSnapshots():
        snapshot = xml.parse_snapshot(one.getXMLDesc())
        for path in snapshot.overlays:
            found[path] = (*found.get(path, ()), f"snapshot {snapshot.name}")
    return found
