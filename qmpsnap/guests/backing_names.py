"""
Whether the headers of a deep chain name their backing files as QEMU does, which makes it cheap.

Asked only where the answer decides whether a guest is read at all (`graph/stall.py`). Nothing
else follows from it, and what cannot be seen counts as no.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from qmpsnap.formats.qcow2 import BadHeader, Header
from qmpsnap.graph.xml import XmlDomain
from qmpsnap.guests.files.header import read_header, read_headers


def plain_by_xml(domain: XmlDomain) -> bool:
    """Whether each header names the file that the domain XML has below, letter by letter."""
    for disk in domain.disks:
        upper = disk.layers[:-1]
        headers = read_headers({layer.path: layer.format or "" for layer in upper if layer.path})
        for layer, below in zip(upper, disk.layers[1:], strict=True):
            header = headers.get(layer.path or "")
            if header is None or below.path is None or header.backing_file != below.path:
                return False
    return True


def plain_by_process(pid: int) -> bool:
    """
    Whether each header in a file that a QEMU has open names another file that it has open.

    Nobody has stated a format of these files yet. A header that a guest wrote into its raw disk
    can only make this False, and no format is concluded.

    Args:
        pid: The QEMU; files are read through its own descriptors, wherever it sees them.
    """
    folder = f"/proc/{pid}/fd"
    headers: list[Header] = []
    names: set[str] = set()
    try:
        # Of a QEMU in a chroot, this process sees longer names than it does.
        root = os.readlink(f"/proc/{pid}/root").rstrip("/")
        for number in os.listdir(folder):
            path = f"{folder}/{number}"
            with suppress(FileNotFoundError):  # closed meanwhile
                names.add(os.readlink(path).removeprefix(root))
                mode = os.stat(path).st_mode
                if stat.S_ISREG(mode) or stat.S_ISBLK(mode):
                    with suppress(BadHeader):
                        headers.append(read_header(path))
    except OSError:
        return False
    named = [header.backing_file for header in headers if header.backing_file is not None]
    return bool(named) and all(name in names for name in named)
