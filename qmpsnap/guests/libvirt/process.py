"""Which process is the QEMU of a guest: by libvirt's own note, without asking QEMU or libvirt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from qmpsnap.monitor.virt import host_of


def pid_of(domain: Any) -> int | None:
    """
    Find the QEMU of a guest that runs on this host; None where that cannot be seen.

    Args:
        domain: A `virDomain`.

    Source: virPidFileWritePath(); the folders of virQEMUDriverConfigNew(), qemu_conf.c.
    """
    uri = str(domain.connect().getURI())
    folder = None if host_of(uri) else _folder(uri)
    if folder is None:
        return None
    try:
        pid = int(Path(folder, f"{domain.name()}.pid").read_text())
        line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    # The note of a guest that was killed together with libvirtd stays, and its number is given
    # to others.
    return pid if domain.UUIDString().encode() in line else None


def _folder(uri: str) -> str | None:
    parts = urlsplit(uri)
    match parts.path:
        case "/system":
            return "/run/libvirt/qemu"
        case "/session":
            above = os.environ.get("XDG_RUNTIME_DIR")
            return f"{above}/libvirt/qemu/run" if above else None
        case "/embed":
            root, *_ = parse_qs(parts.query).get("root", [None])
            return f"{root}/run/qemu" if root else None
        case _:
            return None
