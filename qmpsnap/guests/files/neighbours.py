"""
Who else on this host uses the files of a chain.

What is read are the descriptors of running processes (`/proc`), so a guest that is off is not
seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpsnap.formats.layers import Disk, Identity
from qmpsnap.guests.files.bytes import in_use_by_qemu
from qmpsnap.guests.files.helper import lent
from qmpsnap.guests.files.identity import identity, identity_of
from qmpsnap.guests.files.lease import is_open_elsewhere
from qmpsnap.guests.files.opened import descriptors
from qmpsnap.operations.space import Room

_PROC: Final = "/proc"
_LOOP: Final = "/sys/block"
_SOMEBODY: Final = "somebody who cannot be seen: another container, or the kernel"
_PERHAPS: Final = "perhaps a process of another user, which cannot be looked at"
BY_LOCKS: Final = "a QEMU of this or another host, by its locks"


def other_users(
    paths: Collection[str], active: str | None, *, qemu: int | None = None, left: bool = False
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    Find who has layers of a chain open, and is not its own QEMU.

    Args:
        paths: Host files of the chain.
        active: The active layer's, which the chain's own QEMU has open; None: it has none of them.
        qemu: That process. Where it is not known, whoever has the active file open is taken for
            it: QEMU locks what it writes.
        left: Whether they have left the chain, so that nobody at all is expected to have them
            open. They are removed next: who may have one open counts then. A walk over all
            processes is mostly not needed.

    Returns:
        Descriptions of them by path, and what could not be looked at.
    """
    opened = {path: is_open_elsewhere(path) for path in paths} if left else {}
    wanted = {
        key: path
        for path in paths
        if opened.get(path) is not False and (key := identity(path)) is not None
    }
    if not wanted:
        return {}, ()
    own = None if active is None or qemu is not None else identity(active)
    processes, _, hidden = processes_with(wanted, own, qemu)
    found = {wanted[key]: tuple(users) for key, users in processes.items()}
    for key, device in loop_devices().items():
        if key in wanted:
            found[wanted[key]] = (*found.get(wanted[key], ()), device)
    notes = (f"{hidden} processes of other users could not be looked at: run as root",) * bool(
        hidden
    )
    for path in wanted.values() if left else ():
        # It is removed next.
        if path not in found and in_use_by_qemu(path):
            found[path] = (BY_LOCKS,)
        elif path not in found and (opened[path] or hidden):
            found[path] = (_SOMEBODY if opened[path] else _PERHAPS,)
    return found, notes


def loop_devices() -> dict[Identity, str]:
    """What loop devices read and write: the kernel has it open itself, and no process."""
    found = {}
    for path in Path(_LOOP).glob("loop*/loop/backing_file"):
        with suppress(OSError):  # detached in between
            name = path.read_bytes().rstrip(b"\n").decode("utf-8", "surrogateescape")
            found[identity_of(os.stat(name))] = f"/dev/{path.parts[-3]}"
    return found


def processes_with(
    wanted: Collection[Identity],
    own: Identity | None = None,
    qemu: int | None = None,
    *,
    but: Collection[int] = (),
) -> tuple[dict[Identity, list[str]], int, int]:
    """
    Find processes that have files open; this one does not count.

    Args:
        wanted: The files.
        own: Whoever has this one open does not count either.
        qemu: Nor does this process.
        but: Nor do these.

    Returns:
        Descriptions of processes by file; how many were looked at; how many could not be.
    """
    wanted = frozenset(wanted)
    found: dict[Identity, list[str]] = {}
    seen = hidden = 0
    for pid in os.listdir(_PROC):
        if not pid.isdecimal():
            continue
        try:
            opened = _opened(f"{_PROC}/{pid}/fd")
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            continue  # it has ended
        seen += 1
        if own in opened or int(pid) in (qemu, os.getpid(), *but):
            continue
        for key in opened & wanted:
            found.setdefault(key, []).append(_description(pid))
    helper = lent()
    if hidden and helper is not None:
        with suppress(OSError):
            return helper.opened_by(wanted, own, [os.getpid(), *([] if qemu is None else [qemu])])
    return found, seen, hidden


def layer_paths(disk: Disk, left: Collection[str] | None) -> tuple[str, ...]:
    """Host files of a disk's layers; of those in `left` alone, where it is given."""
    return tuple(
        layer.path
        for layer in disk.layers
        if layer.path is not None and (left is None or layer.path in left)
    )


def space_of(paths: Collection[str]) -> tuple[dict[str, int], dict[str, int]]:
    """
    Measure files on this host.

    Returns:
        Allocated bytes, and bytes left on the file system, by path; of regular files only: a
        block device neither grows nor shares its room.
    """
    allocated, free = {}, {}
    for path in paths:
        try:
            status, system = os.stat(path), os.statvfs(path)
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode):
            allocated[path] = status.st_blocks * 512
            free[path] = system.f_bavail * system.f_frsize
    return allocated, free


def room_of(path: str | None) -> Room | None:
    """Look at a regular file and its file system; None for anything else."""
    if path is None:
        return None
    allocated, free = space_of((path,))
    if path not in allocated:
        return None
    mount = os.path.realpath(path)
    while not os.path.ismount(mount):
        mount = os.path.dirname(mount)
    return Room(file=path, mount=mount, free=free[path], allocated=allocated[path])


def _opened(folder: str) -> set[Identity]:
    """Files that a process has open."""
    numbers = os.listdir(folder)
    found = set()
    with suppress(
        OSError
    ):  # all of this process is kept from us, even from root in some containers
        for _, key in descriptors(folder, numbers):
            found.add(key)
    return found


def holders(wanted: Identity, lock: str) -> tuple[str, ...]:
    """
    Find the processes that hold a lock on a file, as far as they can be looked at.

    Args:
        wanted: The file.
        lock: How the line of this lock ends in `/proc/PID/fdinfo/N`, proc(5).
    """
    found = []
    for pid in filter(str.isdecimal, os.listdir(_PROC)):
        folder = f"{_PROC}/{pid}/fd"
        with suppress(OSError):
            for number, key in descriptors(folder, os.listdir(folder)):
                if key != wanted:
                    continue
                lines = Path(f"{_PROC}/{pid}/fdinfo/{number}").read_text().splitlines()
                if any(one.startswith("lock:") and one.endswith(lock) for one in lines):
                    found.append(_description(pid))
    return tuple(found)


def _description(pid: str) -> str:
    try:
        with open(f"{_PROC}/{pid}/comm", errors="replace") as file:
            name = file.read().strip()
    except OSError:
        name = "a process that has ended"
    return f"{name} (pid {pid})"
