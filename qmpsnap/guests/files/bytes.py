"""Locks on single bytes of a file, which belong to the open descriptor (OFD): ours, and QEMU's."""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

BYTE: Final = 1 << 62
"""Which byte of a file is ours; beyond the end of all files, where advisory locks may lie too."""
_QEMU: Final = ((100, 64), (200, 64))
"""QEMU's bytes for what it does with an image, and for what it does not share
(RAW_LOCK_PERM_BASE, RAW_LOCK_SHARED_BASE; block/file-posix.c)."""
_LOCK: Final = struct.Struct("@hhqqi4x")
"""`struct flock`, fcntl(2): type, whence, start, length, pid."""


def lock_byte(descriptor: int) -> None:
    """
    Lock our byte of a file that is open for writing.

    Raises:
        OSError: Another open descriptor has it, or the file system knows no such locks.
    """
    lock = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, BYTE, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)


def in_use_by_qemu(path: str) -> bool:
    """
    Whether a QEMU, on whichever host, has locks of its own on a file.

    The kernel asks the server of a network file system. Whoever reads with `force-share` has none.
    """
    return any(has_lock(path, start, length) for start, length in _QEMU)


def qemu_has(descriptor: int) -> bool:
    """The same of a file that is open."""
    return any(_is_locked(descriptor, start, length) for start, length in _QEMU)


def has_lock(path: str, start: int, length: int) -> bool:
    """Whether somebody has a lock on some bytes of a file; False where it cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _is_locked(descriptor, start, length)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, start: int, length: int) -> bool:
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)
