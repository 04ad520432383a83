"""
Which file systems keep what is written to them, and which show the locks of other hosts.

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

ON_THE_NETWORK: Final = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "smb3", "smbfs", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.gpfs", "fuse.s3fs", "fuse.sshfs"}
)  # fmt: skip
"""What other hosts may have mounted, too."""
_LOCKS_STAY: Final = frozenset({"9p", "afs", "coda", "ncpfs", "fuse.s3fs", "fuse.sshfs"})
"""Those whose servers are not asked for locks, or need not be."""
_LOCALLY: Final = frozenset(
    {"nolock", "local_lock=all", "local_lock=posix", "nobrl", "localflock", "noflock"}
)
"""Options of mounts that keep locks on this host: nfs(5), mount.cifs(8), mount.lustre(8)."""


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
    return _mount_of(path, mounts)[0]


def hides_other_hosts(path: str, mounts: str = _MOUNTS) -> str | None:
    """
    The type of a network file system on which no lock of another host is seen; None elsewhere.

    There nobody can tell whether a guest of another host uses a file.
    """
    type_, options = _mount_of(path, mounts)
    is_hidden = type_ in _LOCKS_STAY or not _LOCALLY.isdisjoint(options)
    return type_ if type_ in ON_THE_NETWORK and is_hidden else None


def _mount_of(path: str | os.PathLike[str], mounts: str) -> tuple[str, tuple[str, ...]]:
    """Type and options of the mount that a path is on, or would be."""
    wanted = os.path.realpath(path)
    found: tuple[str, tuple[str, ...]] = ("", ())
    length = -1
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return found
    for line in lines:
        mount, _, source = line.rstrip("\n").partition(" - ")
        fields, (type_, *_, options) = mount.split(" "), source.split(" ")
        point = _unescaped(fields[4])
        is_above = point == "/" or wanted == point or wanted.startswith(f"{point}/")
        if is_above and len(point) >= length:  # of two on one point the later one counts
            found, length = (type_, (*fields[5].split(","), *options.split(","))), len(point)
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
