"""What the file system knows of a file: how much room it takes, when it was made and last written."""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

import msgspec

_AT_FDCWD: Final = -100
_STATX_BTIME: Final = 0x800
_STATX_SIZE: Final = 256
_MASK: Final = struct.Struct("=I")
_BTIME: Final = struct.Struct("=q")
_BTIME_AT: Final = 80
"""Source: struct statx, linux/stat.h; the same on every architecture."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One file; nothing of it where it cannot be looked at."""

    size: int | None = None
    """Bytes; of a raw file, what the guest sees."""
    allocated: int | None = None
    """Bytes that it takes on its file system; regular files only."""
    created: float | None = None
    """Seconds since 1970. When it was made on this file system, of a copy when it was copied; None
    where the file system keeps no such time (NFS before 4.2, some network file systems)."""
    modified: float | None = None
    """Seconds since 1970: the last write."""


def measured(paths: Iterable[str | None]) -> dict[str, Measure]:
    """Measure files of this host, by path; those that cannot be looked at are left out."""
    found = {}
    for path in paths:
        if path is not None and path not in found and (one := _measure(path)) is not None:
            found[path] = one
    return found


def _measure(path: str) -> Measure | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: a name no file can have
        return None
    if not stat.S_ISREG(status.st_mode):
        return Measure()
    return Measure(
        size=status.st_size,
        allocated=status.st_blocks * 512,
        created=_birth(path),
        modified=status.st_mtime,
    )


def _birth(path: str) -> float | None:
    """The time of birth, which Python's `os.stat` leaves out."""
    statx = _statx()
    if statx is None:
        return None
    answer = ctypes.create_string_buffer(_STATX_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer) != 0:
        return None
    (mask,) = _MASK.unpack_from(answer.raw)
    (seconds,) = _BTIME.unpack_from(answer.raw, _BTIME_AT)
    return float(seconds) if mask & _STATX_BTIME and seconds > 0 else None


@cache
def _statx() -> Any:
    """The function of the C library; None where it has none (musl before 1.2.5)."""
    return getattr(ctypes.CDLL(None), "statx", None)
