"""
Whether anybody opens a file: the kernel's word (inotify), whichever process and name it is by.

Events belong to the inode, so a symbolic link, a hard link or a file descriptor do not hide an
open. A file that is looked at with `stat` is not open, and not reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inotify_simple import INotify, flags

_WATCHED = flags.OPEN | flags.ACCESS | flags.MODIFY | flags.DELETE_SELF | flags.MOVE_SELF


class Detector:
    """What happened to some files since it was last asked."""

    def __init__(self, inotify: INotify, names: dict[int, str]) -> None:
        self._inotify = inotify
        self._names = names

    def events(self) -> list[str]:
        """
        Tell and forget: `secret: OPEN`, …, in order, neighbours of the same text once.

        The kernel queues an event before the system call that causes it returns, so what a
        command did that has ended is in here.
        """
        told: list[str] = []
        for event in self._inotify.read(timeout=0):
            # A full queue would hide what came after; it has no name of its own.
            assert not event.mask & flags.Q_OVERFLOW
            for flag in flags.from_mask(event.mask):
                text = f"{self._names[event.wd]}: {flag.name}"
                if told[-1:] != [text]:
                    told.append(text)
        return told


@contextmanager
def detecting(*files: Path) -> Iterator[Detector]:
    """Watch files that are there, for as long as the context is open."""
    with INotify() as inotify:
        names = {inotify.add_watch(file, _WATCHED): file.name for file in files}
        yield Detector(inotify, names)
