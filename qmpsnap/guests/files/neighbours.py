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
from qmpsnap.guests.files.identity import identity
from qmpsnap.guests.files.lease import is_open_nowhere
from qmpsnap.guests.files.opened import descriptors
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.space import Room

_PROC: Final = "/proc"
_BY_LOCKS: Final = "a QEMU of this or another host, by its locks"


def other_users(
    paths: Collection[str], active: str | None, *, qemu: int | None = None, left: bool = False
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    Find processes that have layers of a chain open, and are not its own QEMU.

    Args:
        paths: Host files of the chain.
        active: The active layer's, which the chain's own QEMU has open; None: it has none of them.
        qemu: That process. Where it is not known, whoever has the active file open is taken for
            it: QEMU locks what it writes.
        left: Whether they have left the chain, so that nobody at all is expected to have them
            open; then a walk over all processes is mostly not needed.

    Returns:
        Descriptions of processes by path, and what could not be looked at.
    """
    if left:
        paths = [path for path in paths if not is_open_nowhere(path)]
        if not paths:
            return {}, ()
    wanted = {key: path for path in paths if (key := identity(path)) is not None}
    own = None if active is None or qemu is not None else identity(active)
    found, _, hidden = processes_with(wanted, own, qemu)
    notes: tuple[str, ...] = ()
    if hidden:
        notes = (f"{hidden} processes of other users could not be looked at: run as root",)
    return {wanted[key]: tuple(users) for key, users in found.items()}, notes


def processes_with(
    wanted: Collection[Identity], own: Identity | None = None, qemu: int | None = None
) -> tuple[dict[Identity, list[str]], int, int]:
    """
    Find processes that have files open; this one does not count.

    Args:
        wanted: The files.
        own: Whoever has this one open does not count either.
        qemu: Nor does this process.

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
        if own in opened or int(pid) in (qemu, os.getpid()):
            continue
        for key in opened & wanted:
            found.setdefault(key, []).append(_description(pid))
    return found, seen, hidden


def surroundings(
    disk: Disk, left: Collection[str] | None, *, runs: bool, qemu: int | None = None
) -> Surroundings:
    """
    What can be seen on this host around a disk.

    Args:
        disk: As it was planned with.
        left: See `Guest.neighbours`. What has left the chain its own QEMU has open no more, so
            whoever has it open is somebody else.
        runs: Whether the guest does.
        qemu: Its process, where that is known.
    """
    paths = layer_paths(disk, left)
    active = disk.layers[0].path if runs and left is None else None
    own = qemu if left is None else None
    readers, notes = other_users(paths, active, qemu=own, left=left is not None)
    if not runs or left is not None:  # else the guest's own QEMU has locks on them
        readers |= {
            path: (_BY_LOCKS,) for path in paths if path not in readers and in_use_by_qemu(path)
        }
    allocated, free = space_of(paths)
    return Surroundings(readers=readers, allocated=allocated, free=free, notes=notes)


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
