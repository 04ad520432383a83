"""
What a file is, whatever its name: the same file may have many.

Block devices are compared by what they stand for: libvirt makes nodes of its own in a private
`/dev`.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

from qmpsnap.formats.layers import Identity as Identity

_MOST_LINKS: Final = 40
"""The kernel follows no more (MAXSYMLINKS, linux/namei.h)."""


def names_to(path: str) -> tuple[str, ...]:
    """A path, and what its symbolic links lead to, one after the other."""
    names = [path]
    with suppress(OSError, ValueError):  # it is no link, or nothing is there
        while len(names) <= _MOST_LINKS:
            there = os.path.join(os.path.dirname(names[-1]), os.readlink(names[-1]))
            folder = os.path.realpath(os.path.dirname(there))
            names.append(os.path.join(folder, os.path.basename(there)))
    return tuple(names)


def identity_of(status: os.stat_result) -> Identity:
    """Tell what was looked at."""
    if stat.S_ISBLK(status.st_mode):
        return "device", status.st_rdev, 0
    return "file", status.st_dev, status.st_ino


def is_device(path: str) -> bool:
    """Whether a path leads to a block device."""
    found = identity(path)
    return found is not None and found[0] == "device"


def same_file(one: str, other: str) -> bool:
    """Whether two names are of the same image; names that lead nowhere are compared as text."""
    found = identity(one)
    if found is not None:
        return found == identity(other)
    return os.path.realpath(one) == os.path.realpath(other)


def identity(path: str) -> Identity | None:
    """Tell what a path leads to; None for what is not there, and for what no image can be."""
    try:
        return image_identity(os.stat(path))
    except (OSError, ValueError):  # a name with a zero byte is no name
        return None


def image_identity(status: os.stat_result) -> Identity | None:
    """Tell what was looked at; None for what no image can be."""
    is_image = stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return identity_of(status) if is_image else None
