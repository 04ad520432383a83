"""
Which file systems keep what is written to them, and which lose it with the next boot.

Source: proc_pid_mountinfo(5). A file system has one type, wherever it is mounted, and is found by
its number; where none has the number (a subvolume of btrfs), it is one that keeps its files.
"""

from __future__ import annotations

import os
import stat
from typing import Final

_MOUNTS: Final = "/proc/self/mountinfo"
_NO_FILES: Final = frozenset(
    [
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "proc",
        "securityfs",
        "sysfs",
        "tracefs",
    ]
)
"""What the kernel shows there is no folder for files, though some take them: devtmpfs does."""
_IN_MEMORY: Final = frozenset(["ramfs", "tmpfs"])


def type_of(path: str) -> str | None:
    """
    Type of the file system that a path leads to; None where it cannot be told.

    Raises:
        OSError: There is nothing at this path.
    """
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(_MOUNTS, errors="surrogateescape") as file:
            for line in file:
                fields = line.split(" ")
                if fields[2] == number:
                    return fields[fields.index("-") + 1]
    except OSError:
        pass
    return None


def file_system(path: str | os.PathLike[str], mounts: str = _MOUNTS) -> str:
    """
    The type of the file system that a path is on, or would be; empty where nobody tells.

    By the names of mounts: `type_of` does not know subvolumes of btrfs, and nothing that is not there.

    Source: proc(5), mountinfo: the fifth field is the mount point, the type follows ` - `.
    """
    wanted = os.path.realpath(path)
    found, length = "", -1
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return ""
    for line in lines:
        mount, _, source = line.partition(" - ")
        point = _unescaped(mount.split(" ")[4])
        is_above = point == "/" or wanted == point or wanted.startswith(f"{point}/")
        if is_above and len(point) >= length:  # of two on one point the later one counts
            found, length = source.split(" ", 1)[0], len(point)
    return found


def loses(folder: str, model: str) -> str | None:
    """
    Say why a folder would not keep a file as long as another one is kept; None when it would.

    Args:
        folder: Where the file would lie.
        model: The other one.

    Raises:
        OSError: One of them is not there.
    """
    there = type_of(folder)
    if there in _NO_FILES:
        return f"it is on {there}, which is not for files: it would be gone at the next boot"
    if there in _IN_MEMORY and _lasts(model):
        return f"it is on {there}, in memory, and {model} is not: it would be gone at the next boot"
    return None


def _lasts(path: str) -> bool:
    """Of a block device, only the name lies in `/dev`."""
    return stat.S_ISBLK(os.stat(path).st_mode) or type_of(path) not in _IN_MEMORY


def _unescaped(point: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        point = point.replace(code, character)
    return point
