"""
A file in place of the volume service: one JSON line for each update, for a program that reads on.

    {"letter": ID, "snapshot": …, "volume": …, "project": …, "body": {"os-update_snapshot_status": …}}

A line is synced before it counts as accepted, and no letter is written twice: one whose line is there
was accepted by a sender that died before it could note that.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from typing import Final

from qmpsnap.delivery import machine
from qmpsnap.delivery.machine import Answer, Ask
from qmpsnap.journal.letter import Letter
from qmpsnap.status import Dialect

PREFIX: Final = "file:"


class File:
    """See `delivery.service.Service`."""

    def __init__(self, path: str, dialect: Dialect = Dialect.SPEC) -> None:
        """Open nothing yet."""
        self._path, self._dialect = path, dialect

    def ask(self, letter: Letter, ask: Ask) -> Answer:
        """See `Service.ask`."""
        if ask.what != "update":
            return Answer(status=200 if self._dialect is Dialect.SPEC else 404)
        try:
            return Answer(status=202, text=self._written(letter, ask.dialect))
        except OSError as error:
            return Answer(status=None, text=f"{self._path}: {error.strerror or error}")

    def _written(self, letter: Letter, dialect: Dialect) -> str:
        who = letter.due.addressee
        line = json.dumps(
            {
                "letter": letter.id,
                "snapshot": who.snapshot,
                "volume": who.volume,
                "project": who.project,
                "body": machine.body_of(letter, dialect),
            }
        )
        # Nothing of a link that somebody else has put there, and no pipe that nobody writes to.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.EINVAL, "it is not a regular file")
        with open(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            there = file.read()
            if line.encode() in there.split(b"\n"):
                return "its line is there"
            # What a full disk has cut off is no line.
            file.write(
                (b"\n" if there and not there.endswith(b"\n") else b"") + f"{line}\n".encode()
            )
            file.flush()
            os.fsync(file.fileno())
        return "written"
