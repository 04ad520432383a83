"""What the guests of this libvirt that are off name as their files, two levels deep."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from qmpsnap.formats.from_xml import guest_from_xml
from qmpsnap.graph import xml
from qmpsnap.graph.chain import host_path
from qmpsnap.guests.files.header import read_headers
from qmpsnap.guests.libvirt.door import call
from qmpsnap.monitor.virt import libvirt_module


def of_guests_that_are_off(domain: Any) -> Iterator[tuple[str, str]]:
    """
    Yield (guest, path) for what guests that are off use.

    The XML names the active file, whose header names the next one; what lies below that is not
    followed.

    Args:
        domain: One of this libvirt's guests.

    Raises:
        CommandFailed, LostInMidCommand: They could not be listed.
    """
    libvirt, connection = libvirt_module(), domain.connect()
    flags = libvirt.VIR_CONNECT_LIST_DOMAINS_INACTIVE
    listed = call(domain, "virConnectListAllDomains", lambda: connection.listAllDomains(flags))
    for other in listed:
        try:
            found = xml.parse(other.XMLDesc(0))
        except (libvirt.libvirtError, xml.MalformedXml):
            continue  # undefined in between
        report = guest_from_xml(found)
        headers = read_headers(report.stated())
        for path in report.open_files:
            yield found.name, path
            header = headers.get(path)
            if header is not None and header.backing_file is not None:
                below = host_path(header.backing_file) or ""
                yield found.name, os.path.normpath(os.path.join(os.path.dirname(path), below))
