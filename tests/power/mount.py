"""
The recorder: a folder seen through FUSE, of which every change and every sync is written down.

`python -m tests.power.mount POINT BEHIND ATTIC LOG`; one thread, so that the order is known. An
operation is in LOG before whoever asked for it has his answer. What loses its last name goes to
ATTIC, so that its inode stays.

Locks are the kernel's own, which keeps them for a file system that has none: QEMU's and SQLite's
work as on a local disk. Pages are cached for reading and for SQLite's shared memory, and written
through at once, as FUSE does without its write-back cache.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import mfusepy

from tests.power.disk import Folder, Length, Names, Operation, Sync, SyncFolder, Write

_MEANT_FOR_THE_KERNEL: Final = os.O_APPEND | os.O_CREAT | os.O_EXCL
"""It does what these ask for before it calls."""
_HIDDEN: Final = ".fuse_hidden"
"""How libfuse calls a file that is open and has lost its name, so that fstat(2) finds it."""


class Recorder(mfusepy.Operations):  # type: ignore[misc]
    """Passes everything on."""

    use_ns = True

    def __init__(self, behind: str, attic: str, log: str) -> None:
        self._behind, self._attic = behind, attic
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND)

    def _note(self, *operations: Operation) -> None:
        os.write(self._log, b"".join(pickle.dumps(one) for one in operations))

    def _at(self, path: str) -> str:
        return (
            os.path.join(self._attic, os.path.basename(path))
            if _is_hidden(path)
            else self._behind + path
        )

    # --- contents

    def create(self, path: str, mode: int, flags: Any = None) -> int:
        """See mfusepy.Operations, here and below."""
        flags = int(flags) & ~_MEANT_FOR_THE_KERNEL | os.O_CREAT
        descriptor = os.open(self._at(path), flags, mode)
        self._note(_names(path, os.fstat(descriptor).st_ino))
        return descriptor

    def open(self, path: str, flags: int) -> int:
        descriptor = os.open(self._at(path), flags & ~_MEANT_FOR_THE_KERNEL)
        if flags & os.O_TRUNC:
            self._note(Length(os.fstat(descriptor).st_ino, 0))
        return descriptor

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        written = os.pwrite(fh, data, offset)
        self._note(Write(os.fstat(fh).st_ino, offset, data[:written]))
        return written

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        where = self._at(path) if fh is None else fh
        os.truncate(where, length)
        self._note(Length(os.stat(where).st_ino, length))
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        self._note(Sync(os.fstat(fh).st_ino))
        return 0

    def release(self, path: str, fh: int) -> int:
        os.close(fh)
        return 0

    # --- names

    def mkdir(self, path: str, mode: int) -> int:
        os.mkdir(self._at(path), mode)
        inode = os.stat(self._at(path)).st_ino
        self._note(Folder(inode), _names(path, inode))
        return 0

    def unlink(self, path: str) -> int:
        self._put_away(path)
        if not _is_hidden(path):
            self._note(_names(path, None))
        return 0

    def link(self, target: str, source: str) -> int:
        os.link(self._at(source), self._at(target))
        self._note(_names(target, os.stat(self._at(target)).st_ino))
        return 0

    def rename(self, old: str, new: str) -> int:
        if os.path.dirname(old) != os.path.dirname(new):
            raise mfusepy.FuseOSError(mfusepy.errno.EXDEV)  # two folders, two syncs
        inode = os.stat(self._at(old)).st_ino
        if _is_hidden(new):
            os.rename(self._at(old), self._at(new))
            self._note(_names(old, None))
            return 0
        if os.path.lexists(self._at(new)):
            self._put_away(new)
        os.rename(self._at(old), self._at(new))
        changes = ((os.path.basename(old), None), (os.path.basename(new), inode))
        self._note(Names(os.path.dirname(new)[1:], changes))
        return 0

    def fsyncdir(self, path: str, datasync: int, fh: int) -> int:
        self._note(SyncFolder(path[1:]))
        return 0

    def _put_away(self, path: str) -> None:
        status = os.lstat(self._at(path))
        if status.st_nlink == 1:
            os.rename(self._at(path), os.path.join(self._attic, str(status.st_ino)))
        else:
            os.unlink(self._at(path))

    # --- looks, and what a power failure does not change

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        status = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        found = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        return found | {f"st_{one}": found[f"st_{one}_ns"] for one in ("atime", "mtime", "ctime")}

    def readdir(self, path: str, fh: int) -> Iterable[tuple[str, dict[str, int], int]]:
        for name in (".", "..", *os.listdir(self._at(path))):
            status = os.lstat(os.path.join(self._at(path), name))
            yield name, {"st_mode": status.st_mode, "st_ino": status.st_ino}, 0

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._at(path))
        return {name: getattr(status, name) for name in dir(status) if name.startswith("f_")}

    def chmod(self, path: str, mode: int) -> int:
        os.chmod(self._at(path), mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        os.chown(self._at(path), uid, gid)
        return 0

    def utimens(self, path: str, times: tuple[int, int]) -> int:
        os.utime(self._at(path), ns=times)
        return 0


def _is_hidden(path: str) -> bool:
    return os.path.basename(path).startswith(_HIDDEN)


def _names(path: str, inode: int | None) -> Names:
    return Names(os.path.dirname(path)[1:], ((os.path.basename(path), inode),))


def main(point: str, behind: str, attic: str, log: str) -> None:
    """Serve until it is unmounted."""
    mfusepy.FUSE(
        Recorder(behind, attic, log),
        point,
        foreground=True,
        nothreads=True,
        fsname="qmpsnap-power",
        use_ino=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
    )


if __name__ == "__main__":
    main(*map(str, map(Path, sys.argv[1:])))
