"""When a file was made. Python has no statx(2)."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from functools import cache
from typing import Any, Final

_AT_FDCWD: Final = -100
_BTIME: Final = 0x800
_SIZE: Final = 256
_BORN_AT: Final = 80
"""`stx_btime` in `struct statx` (linux/stat.h): seconds, and 32 bits of nanoseconds."""


def born(path: str) -> int | None:
    """When a file was made, in nanoseconds; None where nobody tells."""
    call = _statx()
    if call is None:
        return None
    buffer = ctypes.create_string_buffer(_SIZE)
    with suppress(OSError, ValueError):
        if call(_AT_FDCWD, os.fsencode(path), 0, _BTIME, buffer) != 0:
            return None
        (mask,) = struct.unpack_from("=I", buffer)
        seconds, nanoseconds = struct.unpack_from("=qI", buffer, _BORN_AT)
        return seconds * 10**9 + nanoseconds if mask & _BTIME else None
    return None


@cache
def _statx() -> Any:
    try:
        return ctypes.CDLL(None).statx
    except (AttributeError, OSError):
        return None
