"""
Files that say of images what no image says: `.qmpsnap-ID`, beside them, on the same share.

Whoever can write into the folder can put one there, so it is read as anything hostile is.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.guests.files.helper import instead_of, lent

PREFIX: Final = ".qmpsnap-"
_UNFINISHED: Final = ".tmp"
_LIMIT: Final = 16 * 1024 * 1024
"""Bytes; the plan of a hundred layers has 200,000."""


_LOOKS: Final = 10
"""At a file that is replaced just then."""


class _Replaced(Exception):
    """Removed after it was opened; another one may have its name."""


class MarkerFile(NamedTuple):
    """One of them, as it was found. No dataclass: libvirt's hook imports this at every start."""

    path: str
    owner: int | None = None
    """User id; None where it cannot be looked at."""
    text: str | None = None
    problem: str = ""
    """Why there is no text."""


def marker_path(folder: str, id_: str) -> str:
    """Where the marker of an operation lies."""
    return os.path.join(folder, f"{PREFIX}{id_}")


def markers_in(folder: str) -> tuple[MarkerFile, ...]:
    """The markers of a folder, by name; none where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))
    except PermissionError:
        return _by_helper(folder)
    except OSError:
        return ()
    paths = (os.path.join(folder, name) for name in names if not name.endswith(_UNFINISHED))
    return tuple(found for found in map(_read, paths) if found is not None)


def _by_helper(folder: str) -> tuple[MarkerFile, ...]:
    helper = lent()
    if helper is None:
        return ()
    try:
        found = helper.markers(folder)
    except OSError:
        return ()
    return tuple(
        MarkerFile(os.path.join(folder, name), owner, text, problem)
        for name, owner, text, problem in found
    )


def _read(path: str) -> MarkerFile | None:
    """
    Read one: a regular file with one name, not through a link.

    None: it is gone by now. Its operation has ended, which may be one on another volume of the
    same folder.
    """
    for _ in range(_LOOKS):
        try:
            return _looked_into(path)
        except FileNotFoundError:
            return None
        except _Replaced:
            continue
        except OSError as error:
            if error.errno == errno.ESTALE:  # NFS: removed or replaced by another host
                continue
            return MarkerFile(path=path, problem=error.strerror or str(error))
    return MarkerFile(path=path, problem="it is replaced again and again")


def _looked_into(path: str) -> MarkerFile:
    """
    Read the file that has the name now.

    Raises:
        OSError: It cannot be opened or read.
        _Replaced: It has no name any more.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if status.st_nlink == 0:
            raise _Replaced
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            problem = "it is no regular file with one name"
            return MarkerFile(path=path, owner=status.st_uid, problem=problem)
        if status.st_size > _LIMIT:
            return MarkerFile(path=path, owner=status.st_uid, problem="it is too large")
        text = os.pread(descriptor, status.st_size, 0).decode("ascii")
    except UnicodeDecodeError as error:
        return MarkerFile(path=path, problem=str(error))
    finally:
        os.close(descriptor)
    return MarkerFile(path=path, owner=status.st_uid, text=text)


def write_marker(path: str, text: str) -> None:
    """
    Write one, whole or not at all; it is on the disk when this returns, its name too.

    Raises:
        OSError: It is not there.
    """
    name = f"{path}{_UNFINISHED}"
    try:
        with suppress(FileNotFoundError):
            os.unlink(name)  # of one that was killed here
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600)
    except PermissionError as error:
        instead_of(error).write_marker(path, text)
        return
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o644)  # another host's root may be nobody here
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    sync_folder(os.path.dirname(path))


def remove_marker(path: str) -> None:
    """
    Take one away; it does not come back when the power fails.

    It would forbid every start, of an operation that the journal calls concluded.

    Raises:
        OSError: It is still there, or may come back.
    """
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)
            sync_folder(os.path.dirname(path))
        with suppress(OSError):  # it forbids nothing, and may be somebody else's
            os.unlink(f"{path}{_UNFINISHED}")
    except PermissionError as error:
        instead_of(error).remove_marker(path)
