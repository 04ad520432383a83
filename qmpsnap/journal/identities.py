"""What a file is, told so that it is known again after a restart, on another mount or host."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable

from qmpsnap.formats.qcow2 import READ_SIZE
from qmpsnap.guests.files.birth import born
from qmpsnap.journal.record import Seen


def seen(path: str, *, header: bool = False) -> Seen | None:
    """
    Look at a file; None for what cannot be looked at.

    Args:
        path: Its absolute name.
        header: Whether to hash its header: of a qcow2 file that nobody writes.
    """
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # no name at all: a NUL in it
        return None
    is_device = stat.S_ISBLK(status.st_mode)
    is_image = is_device or stat.S_ISREG(status.st_mode)
    return Seen(
        path=path,
        inode=status.st_ino,
        born=born(path),
        size=status.st_size,
        device=status.st_rdev if is_device else None,
        # To open anything else may do something: a FIFO lets its writer go, a watchdog starts.
        header=_hash(path) if header and is_image else None,
        written=status.st_mtime_ns,
    )


def seen_all(paths: Iterable[tuple[str, bool]]) -> tuple[Seen, ...]:
    """Look at files, as far as they can be looked at; of which to hash the header."""
    found = (seen(path, header=header) for path, header in paths)
    return tuple(one for one in found if one is not None)


def modified(path: str) -> int | None:
    """When a file was last written, by the clock of its share: nanoseconds; None where nobody can look."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return None


def is_same(before: Seen, now: Seen) -> bool:
    """Whether it is the same file, whatever it is called and holds now."""
    if before.device is not None or now.device is not None:
        return before.device == now.device
    same_birth = None in (before.born, now.born) or before.born == now.born
    return before.inode == now.inode and same_birth


def _hash(path: str) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return hashlib.sha256(os.pread(descriptor, READ_SIZE, 0)).hexdigest()
    except OSError:
        return None
    finally:
        os.close(descriptor)
