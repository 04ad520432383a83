"""Locks on single bytes of a file, which belong to the open descriptor (OFD): ours, and QEMU's."""

from __future__ import annotations

import fcntl
import os
import struct
from contextlib import suppress
from typing import Final

from qmpsnap.guests.files.helper import lent

BYTE: Final = 1 << 62
"""Which byte of a file is ours; beyond the end of all files, where advisory locks may lie too."""
QEMU: Final = ((100, 64), (200, 64))
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


def unlock_byte(descriptor: int) -> None:
    """
    Give our byte back at once.

    To close the descriptor does that too, but not while a process that was just forked still has a
    copy of it: then the next operation on the file would be refused.
    """
    lock = _LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, BYTE, 1, 0)
    with suppress(OSError):  # of a share that is gone; closing has to do
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)


def keep_from_qemu(descriptor: int) -> None:
    """
    Let no QEMU open a file as long as this descriptor is: it says as QEMU does that nothing is shared.

    Whoever opens one sets its locks first and looks at those of others then; so has the caller to do
    (`qemu_has`).

    Raises:
        OSError: It cannot be locked.

    Source: raw_apply_lock_bytes(), raw_check_lock_bytes(), block/file-posix.c.
    """
    for start, length in QEMU:
        lock = _LOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, lock)


def in_use_by_qemu(path: str) -> bool:
    """
    Whether a QEMU, on whichever host, has locks of its own on a file.

    The kernel asks the server of a network file system. Whoever reads with `force-share` has none.
    """
    return any(has_lock(path, start, length) for start, length in QEMU)


def qemu_has(descriptor: int) -> bool:
    """The same of a file that is open."""
    return any(is_locked(descriptor, start, length) for start, length in QEMU)


def has_lock(path: str, start: int, length: int) -> bool:
    """Whether somebody has a lock on some bytes of a file; False where it cannot be told."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except PermissionError:
        return _helper_sees(path, start, length)
    except OSError:
        return False
    try:
        return is_locked(descriptor, start, length)
    finally:
        os.close(descriptor)


def _helper_sees(path: str, start: int, length: int) -> bool:
    helper = lent()
    try:
        return helper is not None and helper.is_locked(path, start, length)
    except OSError:
        return False


def is_locked(descriptor: int, start: int, length: int) -> bool:
    """The same of a file that is open."""
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked)
    except OSError:
        return False
    return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)
