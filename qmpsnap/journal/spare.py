"""
Connections to a journal that stay open between two uses.

Opening one checks the whole database, which takes longer the more is in it (20 ms for a thousand
operations), and the end of the last one writes the log back, with two syncs. A service that opens
the journal some ten times an operation keeps its connections instead. Each is checked again when it
is old, and none is used once another file has the journal's name.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Final

import msgspec

_AT_MOST: Final = 4
"""Kept open; more are in use at once only while many operations run."""
_GOOD_FOR_S: Final = 600.0
"""Since its database was checked."""


class Checked(msgspec.Struct, frozen=True):
    """A connection, the file it was opened on, and when that was checked."""

    database: sqlite3.Connection
    file: tuple[int, int] | None
    """Device and inode; None: there was none."""
    since: float
    process: int

    @classmethod
    def now(cls, database: sqlite3.Connection, path: str, since: float) -> Checked:
        """Of a connection that is going to be checked."""
        return cls(database, _file(path), since, os.getpid())


class Spare:
    """The connections of one journal that nobody uses just now; of several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep none yet."""
        self.clock = clock
        self._lock = Lock()
        self._kept: list[Checked] = []

    def __del__(self) -> None:
        """Close what is kept; SQLite forbids that for what a parent has opened."""
        for one in self._kept:
            if one.process == os.getpid():
                _close(one.database)

    def taken(self, path: str) -> Checked | None:
        """Take a connection that is still good, or None if there is none."""
        now, file = self.clock(), _file(path)
        with self._lock:
            while self._kept:
                one = self._kept.pop()
                if one.process != os.getpid():
                    continue  # of the parent: SQLite forbids to use it, or to close it
                if one.file == file and now - one.since < _GOOD_FOR_S:
                    return one
                _close(one.database)
        return None

    def give(self, one: Checked) -> None:
        """Keep one that is not used any more, or close it."""
        with self._lock:
            if len(self._kept) < _AT_MOST and not one.database.in_transaction:
                self._kept.append(one)
                return
        _close(one.database)


def _file(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _close(database: sqlite3.Connection) -> None:
    with suppress(sqlite3.Error):
        database.close()
