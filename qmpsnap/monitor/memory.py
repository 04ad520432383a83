"""
What was heard from a QEMU, for as long as that process lives.

In this process, and for the next command in a small file in the run-time folder
(`$XDG_RUNTIME_DIR/qmpsnap`, or `/run/qmpsnap` for root), which is emptied when the host restarts.
It saves a question and decides nothing: a file that is damaged, or not ours, is as good as none.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

_FILE: Final = "abilities.json"
_LIMIT: Final = 1024 * 1024
"""Bytes; ten thousand guests have less."""
_ROOT: Final = 0
_STARTED: Final = 22 - 3
"""Position of the start time behind the name: field 22 in proc(5), where the third is the first
after it."""


class Process(msgspec.Struct, frozen=True):
    """One process, and never another one that gets its number later."""

    pid: int
    started: int
    """Clock ticks after the start of the host."""


Known = Mapping[str, bool]
_heard: Final[dict[Process, Known]] = {}


def qemu_process(pid: int | None) -> Process | None:
    """
    Identify a QEMU by its number; None for what cannot be seen, or is no QEMU.

    The peer of a socket may be a proxy, behind which another QEMU may answer tomorrow.
    """
    if not pid:
        return None
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].rpartition(b"/")[2]
        started = _started(pid)
    except OSError:
        return None
    return Process(pid, started) if b"qemu" in name or b"kvm" in name else None


def recall(process: Process | None) -> Known:
    """What was heard from a QEMU before, by any command of this user."""
    if process is None:
        return {}
    if process not in _heard:
        _heard[process] = _stored().get(_key(process), {})
    return _heard[process]


def note(process: Process | None, known: Known) -> None:
    """Remember what was heard from a QEMU."""
    if process is None or recall(process) == known:
        return
    _heard[process] = dict(known)
    with suppress(OSError):
        _store({**_stored(), _key(process): known})


def _key(process: Process) -> str:
    return f"{process.pid} {process.started}"


def _started(pid: int) -> int:
    # The name may have spaces and brackets in it.
    return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[_STARTED])


def own_folder() -> Path | None:
    """
    The run-time folder of this tool, made where it is not there; None where there is none to be had.

    Nobody but this user can put a file into it.
    """
    folder = _folder()
    try:
        if folder is None or not _is_ours(folder.parent):
            return None
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if _is_ours(folder) else None
    except OSError:
        return None


def _folder() -> Path | None:
    """The run-time folder of this user, where there is one; ours in it may not be there yet."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    above = Path(given) if given else Path("/run") if os.geteuid() == _ROOT else None
    return above / "qmpsnap" if above is not None and above.is_absolute() else None


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can put a file into a folder."""
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _stored() -> dict[str, Known]:
    folder = _folder()
    try:
        if folder is None or not _is_ours(folder):
            return {}
        descriptor = os.open(folder / _FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_uid != os.geteuid():
                return {}
            document = json.loads(file.read(_LIMIT))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = document.items() if isinstance(document, dict) else ()
    return {key: known for key, known in entries if _is_known(known)}


def _is_known(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(one, bool) for one in value.values())


def _store(entries: Mapping[str, Known]) -> None:
    """Write the file as a whole, without the processes that have ended."""
    folder = own_folder()
    if folder is None:
        return
    living = {key: known for key, known in entries.items() if _lives(key)}
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{_FILE}.")
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(living, file)
        os.replace(name, folder / _FILE)
    except BaseException:
        os.unlink(name)
        raise


def _lives(key: str) -> bool:
    pid, _, started = key.partition(" ")
    try:
        return _started(int(pid)) == int(started)
    except (OSError, ValueError):
        return False
