"""
One operation a disk at a time, between all processes: a lock on one byte of each file it works on.

An OFD lock belongs to the open descriptor: the kernel drops it with whoever held it, however that
ended, and nobody has to judge by a process id. It lies on a byte far away from QEMU's own (0, 1, 100
to 163, 200 to 263; block/file-posix.c) and from all data, since some network file systems keep what
is locked from being written. Never flock(2): NFS makes a lock of the whole file of it, and QEMU then
fails with "Failed to lock byte 100".

Where a file may not be written, or is a block device (which has several nodes, and of which udev
takes every close after writing for a change), the lock lies in the run-time folder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from qmpsnap.errors import Failed, Refused
from qmpsnap.formats.layers import Identity
from qmpsnap.guests.files.bytes import BYTE, has_lock, lock_byte, qemu_has, unlock_byte
from qmpsnap.guests.files.helper import instead_of
from qmpsnap.guests.files.identity import identity, image_identity
from qmpsnap.guests.files.neighbours import holders, processes_with
from qmpsnap.monitor.memory import own_folder

_TAKEN: Final = (errno.EAGAIN, errno.EACCES)


class DiskLocked(Refused):
    """Another operation is at work on the disk."""

    msg = "another operation is at work on {self.path}{self.who}"
    remedy = (
        "Wait until it has ended, then give the command again. The lock goes with the process that "
        "holds it."
    )

    path: str
    who: str


class NotOurs(Failed):
    """An overlay that is to be taken back may be somebody else's by now."""

    msg = "{self.path} was kept: {self.reason}"
    remedy = "If nobody uses it, the same command given again takes it."
    changed = "no"

    path: str
    reason: str


class Claim:
    """The locks of one operation. See `operations.guest.Claim`."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self._held: set[Identity] = set()
        self._made: dict[str, int] = {}
        self.notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Let go of all."""
        self._open.close()
        self._held.clear()
        self._made.clear()

    def take(self, paths: Collection[str]) -> None:
        """
        See `Claim.take`.

        Raises:
            DiskLocked: Another operation has one of them.
        """
        for path in paths:
            key = identity(path)
            if key is not None and key not in self._held:
                self._take(path, key)
                self._held.add(key)

    def _take(self, path: str, key: Identity) -> None:
        why: str | None = None
        if key[0] == "file":
            if has_lock(path, BYTE, 1):
                raise DiskLocked(path, _who(key))
            try:
                self._lock_file(path)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    raise DiskLocked(path, _who(key)) from error
                why = error.strerror or str(error)
            else:
                return
        folder = own_folder()
        if folder is None:
            note = f"no lock could be had on {path} ({why}): other calls are not kept away from it"
            self.notes = (*self.notes, note)
            return
        name = folder / "locks" / "-".join(map(str, key))
        try:
            name.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._lock(os.open(name, flags, 0o600))
        except OSError as error:
            if error.errno == errno.EAGAIN:
                raise DiskLocked(path, _who(identity(str(name)))) from error
            why = error.strerror or str(error)
        if why is not None:
            note = (
                f"the lock on {path} is in {folder} ({why}): only this user's calls are kept away"
            )
            self.notes = (*self.notes, note)

    def _lock_file(self, path: str) -> None:
        """
        Lock our byte of a file, by the helper where this user may not write the file.

        Raises:
            OSError: As `_lock`.
        """
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            helper = instead_of(error)
            self._open.callback(helper.release, helper.lock(path))
        else:
            self._lock(descriptor)

    def _lock(self, descriptor: int) -> None:
        """
        Lock our byte, for as long as the claim lasts.

        Raises:
            OSError: It is taken (EAGAIN), or cannot be locked.
        """
        try:
            lock_byte(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _TAKEN:
                raise OSError(errno.EAGAIN, error.strerror) from error
            raise
        self._open.callback(os.close, descriptor)
        self._open.callback(unlock_byte, descriptor)

    def keep(self, paths: Collection[str]) -> None:
        """See `Claim.keep`: while a file is held, no other one gets its number."""
        for path in paths:
            with suppress(OSError):
                self._open.callback(os.close, os.open(path, os.O_PATH | os.O_CLOEXEC))

    def is_anothers(self, path: str) -> bool:
        """See `Claim.is_anothers`."""
        return identity(path) not in self._held and has_lock(path, BYTE, 1)

    def made(self, path: str, descriptor: int) -> None:
        """Take note of a file that was made, and is locked already; its descriptor is ours now."""
        self._open.callback(os.close, descriptor)
        self._made[path] = descriptor
        key = image_identity(os.fstat(descriptor))
        if key is not None:
            self._held.add(key)

    def take_back(self, path: str) -> None:
        """
        Remove a file that this operation has made, if certainly nobody has taken it since.

        Raises:
            NotOurs: Somebody may have.
            OSError: It cannot be removed.
        """
        descriptor = self._made.get(path)
        if descriptor is None:
            raise NotOurs(path, "this call has not made it")
        with _alone(descriptor) as problem:
            try:
                same = os.path.samestat(os.lstat(path), os.fstat(descriptor))
            except FileNotFoundError:
                return
            if not same:
                raise NotOurs(path, "another file has its name")
            if problem is not None:
                raise NotOurs(path, problem)
            os.unlink(path)


@contextmanager
def _alone(descriptor: int) -> Iterator[str | None]:
    """
    Whether nobody else has a file open, told as the reason why not; while it lasts nobody can open it.

    By a lease on our own descriptor, or else by QEMU's locks and all processes: of another user's
    it is not known.
    """
    try:
        # Who opens it meanwhile waits; see `lease.py`.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            yield "somebody has it open"
            return
        yield _seen_in_use(descriptor)
        return
    try:
        yield None
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _seen_in_use(descriptor: int) -> str | None:
    if qemu_has(descriptor):
        return "a QEMU has it open"
    key = image_identity(os.fstat(descriptor))
    users, _, hidden = processes_with(() if key is None else (key,))
    if users:
        return "somebody has it open"
    return f"{hidden} processes could not be looked at" if hidden else None


def _who(key: Identity | None) -> str:
    """Who holds our byte of a file, as far as that can be seen."""
    who = [] if key is None else holders(key, f" {BYTE} {BYTE}")
    return f": {', '.join(who)}" if who else ""
