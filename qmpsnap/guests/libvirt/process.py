"""Which process is the QEMU of a guest: by libvirt's own note, without asking QEMU or libvirt."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from qmpsnap.monitor.virt import host_of

_UCRED: Final = struct.Struct("3i")
"""`struct ucred`, unix(7): pid, uid, gid."""
_OWN: Final = "/proc/self/fd"


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
    name, uuid = f"{domain.name()}.pid", domain.UUIDString().encode()
    for root in _roots():
        try:
            pid = int(Path(f"{root}{folder}", name).read_text())
            line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        # The note of a guest that was killed together with libvirtd stays, and its number is given
        # to others.
        if uuid in line:
            return pid
    return None


def _folder(uri: str) -> str | None:
    parts = urlsplit(uri)
    asked = parse_qs(parts.query)
    match parts.path:
        case "/system":
            return "/run/libvirt/qemu"
        case "/session":
            if "socket" in asked:
                return f"{os.path.dirname(asked['socket'][0])}/qemu/run"
            above = os.environ.get("XDG_RUNTIME_DIR")
            return f"{above}/libvirt/qemu/run" if above else None
        case "/embed":
            root, *_ = asked.get("root", [None])
            return f"{root}/run/qemu" if root else None
        case _:
            return None


def _roots() -> Iterator[str]:
    """Where the note may lie: here, and below the root of a libvirtd that has a `/run` of its own."""
    yield ""
    for pid in {*_daemons()}:
        yield f"/proc/{pid}/root"


def _daemons() -> Iterator[int]:
    """The processes at the other end of this process's connections to libvirt."""
    for number in os.listdir(_OWN):
        try:
            if not os.readlink(f"{_OWN}/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(number))) as one:
                if one.family != socket.AF_UNIX or not str(one.getpeername()).endswith("-sock"):
                    continue
                credentials = one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        except OSError:
            continue  # closed, or not connected
        pid, _, _ = _UCRED.unpack(credentials)
        if pid:
            yield pid
