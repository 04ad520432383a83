"""Which files of a folder a libvirt knows of: `orphans` and `explain` ask."""

from __future__ import annotations

import os
from typing import Any, Final

from qmpsnap.graph import xml
from qmpsnap.guests.files.census import Census
from qmpsnap.guests.libvirt.named import Names
from qmpsnap.monitor.passthrough import MonitorBusy, in_time
from qmpsnap.monitor.virt import libvirt_module

TIMEOUT_S: Final = 120.0
"""libvirt lists all guests or none: it waits for one that is being ended (seen for minutes)."""


def ask_libvirt(connection: Any, source: str, folder: str) -> Census:
    """
    Ask a libvirt for every file that any of its guests names, running or off.

    Args:
        connection: A `virConnect`, to a libvirt of this host.
        source: Its URI.
        folder: Whose files are in question, without symbolic links.
    """
    try:
        return in_time(lambda: _asked(connection, source, folder), TIMEOUT_S)
    except MonitorBusy:
        return Census(gaps=(f"{source} does not list its guests: one is stuck",))
    except libvirt_module().libvirtError as error:
        return Census(gaps=(f"{source} does not list its guests: {error}",))


def _asked(connection: Any, source: str, folder: str) -> Census:
    names, gaps = Names(connection), []
    guests = connection.listAllDomains()
    for domain in guests:
        try:
            names.ask(domain)
        except (libvirt_module().libvirtError, xml.MalformedXml) as error:
            gaps.append(f"{source} does not tell all of a guest: {error}")
    gaps += [why for _, why in names.gaps]
    gaps += [
        f"the chain of {use.who} cannot be followed: {path} is not there"
        for use, path in names.gone
        # In the folder that was listed it is certainly gone; elsewhere a share may not be mounted.
        if os.path.realpath(os.path.dirname(path)) != folder
    ]
    gaps += [
        f"{use.who} is given the folder {path}, with all that is in it"
        for use, path in names.given
        if os.path.commonpath([folder, (real := os.path.realpath(path))]) == real
    ]
    return Census(
        uses={key: found for key, found in names.uses.items() if not isinstance(key, str)},
        asked={f"guests of {source}": len(guests)},
        gaps=tuple(dict.fromkeys(gaps)),
    )
