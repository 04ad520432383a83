"""
What a file is, whatever its name: the same file may have many.

Block devices are compared by what they stand for: libvirt makes nodes of its own in a private
`/dev`.
"""

from __future__ import annotations

import os
import stat

Identity = tuple[str, int, int]
"""Kind (`file` or `device`), and two numbers that no other file of this host has."""


def identity_of(status: os.stat_result) -> Identity:
    """Tell what was looked at."""
    if stat.S_ISBLK(status.st_mode):
        return "device", status.st_rdev, 0
    return "file", status.st_dev, status.st_ino


def identity(path: str) -> Identity | None:
    """Tell what a path leads to; None for what is not there, and for what no image can be."""
    try:
        return image_identity(os.stat(path))
    except OSError:
        return None


def image_identity(status: os.stat_result) -> Identity | None:
    """Tell what was looked at; None for what no image can be."""
    is_image = stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return identity_of(status) if is_image else None
