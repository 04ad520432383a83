"""
Who else on this host uses the files of a chain.

Files are compared by device and inode: the same file may have many names. What is read are the
descriptors of running processes (`/proc`), so a guest that is off is not seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path

from qmpsnap.formats.layers import Disk
from qmpsnap.operations.space import Room

_PROC = Path("/proc")


def other_users(
    paths: Collection[str], active: str
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """
    Find processes that have layers of a chain open, and are not its own QEMU.

    The one that has the active file open is the chain's own: QEMU locks what it writes.

    Args:
        paths: Host files of the chain.
        active: The active layer's.

    Returns:
        Descriptions of processes by path, and what could not be looked at.
    """
    wanted = {key: path for path in paths if (key := _identity(path)) is not None}
    own = _identity(active)
    found: dict[str, list[str]] = {}
    hidden = 0
    for pid in _processes():
        try:
            opened = set(_open_files(pid))
        except PermissionError:
            hidden += 1
            continue
        except OSError:
            continue  # it has ended meanwhile
        if own in opened or pid == os.getpid():
            continue
        for key in opened & wanted.keys():
            found.setdefault(wanted[key], []).append(_description(pid))
    notes: tuple[str, ...] = ()
    if hidden:
        notes = (f"{hidden} processes of other users could not be looked at: run as root",)
    return {path: tuple(users) for path, users in found.items()}, notes


def layer_paths(disk: Disk) -> tuple[str, ...]:
    """Host files of a disk's layers."""
    return tuple(layer.path for layer in disk.layers if layer.path is not None)


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


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _processes() -> Iterator[int]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            yield int(entry.name)


def _open_files(pid: int) -> Iterator[tuple[int, int]]:
    for descriptor in (_PROC / str(pid) / "fd").iterdir():
        key = _identity(descriptor)
        if key is not None:
            yield key


def _description(pid: int) -> str:
    try:
        name = (_PROC / str(pid) / "comm").read_text(errors="replace").strip()
    except OSError:
        name = "a process that has ended"
    return f"{name} (pid {pid})"
