"""Who is at work on an operation: a lock in the state folder, gone with the process that has it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from qmpsnap.errors import Refused


class OperationBusy(Refused):
    """Another process, or another thread of this one, is at work on it."""

    msg = "operation {self.operation} is being carried out by process {self.by}"
    remedy = "Wait for it to end. If it does not, end that process, then `qmpsnap resume {self.operation}`."

    operation: str
    by: str


@contextmanager
def held(folder: Path, id_: str) -> Iterator[None]:
    """
    Be the only one at work on an operation for the length of a block.

    Raises:
        OperationBusy: Somebody else is.
        OSError: There is no such folder, or it cannot be written.
    """
    path = folder / f"{id_}.lock"
    descriptor = _locked(path, id_)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(path)
        os.close(descriptor)


def _locked(path: Path, id_: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is(path, descriptor):
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except BlockingIOError:
            by = os.pread(descriptor, 20, 0).decode(errors="replace") or "?"
            os.close(descriptor)
            raise OperationBusy(id_, by) from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it just now


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
