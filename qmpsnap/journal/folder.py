"""
The folder in which this host remembers.

`$QMPSNAP_STATE`; else for root `/var/lib/qmpsnap`; else `qmpsnap` in the XDG state folder.
It is on a local disk, and nobody else can write into it: what is read there is acted on.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Final

from qmpsnap.errors import Refused
from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.guests.files.mounts import ON_THE_NETWORK, file_system

VARIABLE: Final = "QMPSNAP_STATE"
_ROOT: Final = 0
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class JournalUnusable(Refused):
    """There is no way to write down what is going to be done."""

    msg = "the journal {self.path} cannot be used: {self.reason}"
    remedy = (
        "Mend the cause, or name another folder in QMPSNAP_STATE. Without a journal "
        "(`--no-journal`), what a crash leaves cannot always be put right."
    )

    path: str
    reason: str


class StateOnNetwork(JournalUnusable):
    """SQLite's write-ahead log needs memory that all its users share, so one host."""

    msg = "the state folder {self.path} is on a network file system ({self.reason})"
    remedy = "Name a folder on a local disk in QMPSNAP_STATE."


def state_folder() -> Path:
    """
    Where the state is; it may not be there yet.

    Raises:
        JournalUnusable: The environment names no absolute path.
    """
    given = os.environ.get(VARIABLE)
    if given:
        folder = Path(given)
    elif os.geteuid() == _ROOT:
        folder = Path("/var/lib/qmpsnap")
    else:
        above = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(above) / "qmpsnap"
    if not folder.is_absolute():
        raise JournalUnusable(str(folder), "the folder is not named by an absolute path")
    return folder


def _file_system(folder: Path) -> str:
    """Its type, which is looked up once for each folder: the list of mounts may be long."""
    try:
        at, on = os.stat(folder), os.statvfs(folder)
    except OSError:
        return file_system(folder)
    return _known(str(folder), at.st_dev, at.st_ino, on.f_fsid)


@lru_cache(maxsize=16)
def _known(folder: str, _device: int, _inode: int, _file_system: int) -> str:
    """What is mounted over it has another number of one of these kinds."""
    return file_system(folder)


def _make(folder: Path) -> None:
    """Make it where it is not there, to stay: what is synced in a folder is lost with its name."""
    new = [*takewhile(lambda one: not one.exists(), (folder, *folder.parents))]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for one in new:
        sync_folder(one.parent)


def checked(folder: Path, *, make: bool) -> Path:
    """
    Look at the state folder, and make it where it is not there.

    Raises:
        StateOnNetwork: It is on a share.
        JournalUnusable: It cannot be made, or others can write into it.
        FileNotFoundError: It is not there, and is not to be made.
    """
    type_ = _file_system(folder)
    if type_ in ON_THE_NETWORK:
        raise StateOnNetwork(str(folder), type_)
    try:
        if make:
            _make(folder)
        status = folder.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not make:
            raise
        raise JournalUnusable(str(folder), error.strerror or str(error)) from error
    if status.st_uid not in (_ROOT, os.geteuid()) or status.st_mode & _OTHERS_MAY_WRITE:
        raise JournalUnusable(str(folder), "others can write into its folder")
    return folder
