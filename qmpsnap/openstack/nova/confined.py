"""
Where the helper may look and change: files of Nova's volumes, and processes that are QEMUs.

Whoever asks is not trusted: it may be anybody who has taken over nova-compute, and who owns folders
below Nova's own. So a path is never used as it comes. It is taken apart, has to lie below one of the
bases, and is opened name by name, none of them a link; then what was opened is looked at, and that
same file is worked on. A process is held by its folder in `/proc`, which never becomes another's.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_PATH_LIMIT: Final = 4096
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_QEMUS: Final = ("qemu", "kvm")
"""How the names of QEMU's programs begin."""
_STARTED: Final = 22 - 3
"""See `monitor/memory.py`."""


MOUNT_BASES: Final = ("nfs", "quobyte", "vzstorage")
"""Shares are mounted below `[libvirt] …_mount_point_base`, each in a folder of its own."""


def mount_bases_of(conf: Any) -> tuple[str, ...]:
    """Where Nova mounts the shares of volumes."""
    found = (conf.libvirt[f"{name}_mount_point_base"] for name in MOUNT_BASES)
    return tuple(dict.fromkeys(os.path.normpath(one) for one in found))


def bases_of(conf: Any) -> tuple[str, ...]:
    """All folders that a disk of a guest of Nova's may lie below, as a file."""
    return tuple(dict.fromkeys((*mount_bases_of(conf), os.path.normpath(conf.instances_path))))


def refused(path: str, reason: str) -> PermissionError:
    """The error for everything that is refused; its arguments reach the other side of the socket whole."""
    return PermissionError(errno.EPERM, f"the helper refuses {path[:_PATH_LIMIT]}: {reason}")


def check_roots_own(path: str) -> None:
    """
    See that nobody but root can change a file of configuration, or put another one in its place.

    Raises:
        OSError: Somebody can, or it is not there.
    """
    for one in (path, os.path.realpath(path)):
        while True:
            status = os.lstat(one)
            is_open = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid != 0 or (is_open and not stat.S_ISLNK(status.st_mode)):
                raise refused(path, f"others than root can change {one}")
            if one in ("/", ""):
                break
            one = os.path.dirname(one)


def parts_of(path: str, bases: Sequence[str]) -> tuple[str, ...]:
    """
    Take a path apart. Pure.

    Args:
        path: Absolute, and without a component that means another one.
        bases: Folders that it has to lie below.

    Raises:
        PermissionError: It does not, or is no such path.
    """
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        raise refused(str(path), "it is no absolute path")
    if len(os.fsencode(path)) > _PATH_LIMIT:
        raise refused(path, "it is too long")
    parts = tuple(path.split("/")[1:])
    if {"", ".", ".."}.intersection(parts):
        raise refused(path, "it is not in its simplest form")
    for base in bases:
        above = tuple(part for part in base.split("/") if part)
        if base.startswith("/") and above and parts[: len(above)] == above != parts:
            return parts
    raise refused(path, f"it is not below {', '.join(bases)}")


@contextmanager
def folder_of(path: str, bases: Sequence[str]) -> Iterator[tuple[str, str]]:
    """
    Open the folder of a file.

    Yields:
        A path of the folder that means this one as long as it is open, and the file's bare name.

    Raises:
        OSError: It is not there, or refused.
    """
    *above, name = parts_of(path, bases)
    folder = os.open("/", _FOLDER)
    try:
        for part in above:
            below = _below(folder, part, path)
            os.close(folder)
            folder = below
        yield f"/proc/self/fd/{folder}", name
    finally:
        os.close(folder)


def _below(folder: int, part: str, path: str) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise refused(path, f"{part} is a link, or no folder") from None
        raise


@contextmanager
def regular(path: str, bases: Sequence[str], flags: int) -> Iterator[int]:
    """
    Open a regular file that has one name.

    What it is, is looked at before it is opened for anything: to open a device may do something.

    Args:
        path: The file.
        bases: See `parts_of`.
        flags: `os.O_RDONLY` or `os.O_RDWR`.

    Raises:
        OSError: It is not there, or refused.
    """
    with folder_of(path, bases) as (folder, name):
        found = os.open(f"{folder}/{name}", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise refused(path, "it is no regular file")
        if status.st_nlink != 1:
            raise refused(path, "it has another name as well")
        opened = os.open(f"/proc/self/fd/{found}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(found)
    try:
        yield opened
    finally:
        os.close(opened)


@contextmanager
def qemu(pid: int, started: int, proc: str = "/proc") -> Iterator[str]:
    """
    Hold the folder of a process that is a QEMU.

    Args:
        pid: Its number.
        started: When it was started, as in `monitor.memory.Process`.
        proc: Where processes are.

    Raises:
        OSError: It has ended, its number is another's by now, or it is no QEMU.
    """
    who = f"process {int(pid)}"
    folder = os.open(f"{proc}/{int(pid)}", _FOLDER)
    try:
        held = f"/proc/self/fd/{folder}"
        fields = Path(held, "stat").read_text(errors="replace").rpartition(")")[2].split()
        if int(fields[_STARTED]) != started:
            raise refused(who, "it is another process by now")
        if not os.path.basename(os.readlink(f"{held}/exe")).startswith(_QEMUS):
            raise refused(who, "it is no QEMU")
        yield held
    finally:
        os.close(folder)
