"""
What the journal's database is made of, in every version that was ever written.

    operation   one row each: its record, and its conclusion once it has one
    act         one row each: the intent, and what it answered
    letter      one row each: what the volume service is to be told of an operation (version 2)

A database of an older version is brought up to date when it is opened for writing, in one
transaction; one that is only looked into stays as it is. A newer one is refused.

Source: sqlite.org/pragma.html (user_version, application_id).
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmpsnap.guests.files.folders import sync_folder
from qmpsnap.journal.folder import JournalUnusable

NAME: Final = "journal.db"
VERSION: Final = 2
APPLICATION: Final = 0x716D7073
"""`qmps`; what `file` shows, and what no other program's database has."""
_STEPS: Final = (
    """
CREATE TABLE operation (
    id TEXT PRIMARY KEY, begun REAL NOT NULL, record TEXT NOT NULL, ended REAL, conclusion TEXT
) WITHOUT ROWID;
CREATE INDEX operation_ended ON operation (ended, begun);
CREATE TABLE act (
    operation TEXT NOT NULL REFERENCES operation ON DELETE CASCADE,
    number INTEGER NOT NULL, act TEXT NOT NULL, answer TEXT, PRIMARY KEY (operation, number)
) WITHOUT ROWID;
""",
    """
CREATE TABLE letter (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, snapshot TEXT NOT NULL,
    volume TEXT NOT NULL, operation TEXT, state TEXT NOT NULL, changed REAL NOT NULL,
    due TEXT NOT NULL, content TEXT, attempts INTEGER NOT NULL DEFAULT 0,
    is_unsure INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL DEFAULT 0, seen TEXT, answer TEXT
);
CREATE INDEX letter_state ON letter (state, snapshot);
CREATE INDEX letter_operation ON letter (operation);
""",
)
"""What leads from each version to the next, beginning with nothing."""


class JournalDamaged(JournalUnusable):
    """It is there, and it is not what this program wrote."""

    msg = "the journal {self.path} is damaged: {self.reason}"
    remedy = (
        "What is good of it `qmpsnap log` still shows. Keep it: put it aside under another name. "
        "What was open is also in `.qmpsnap-*` files beside the images: `qmpsnap resume PATH` takes "
        "one."
    )


class JournalNewer(JournalUnusable):
    """A later version of this program has written it."""

    msg = "the journal {self.path} is of a newer qmpsnap ({self.reason})"
    remedy = "Use that version, or name another folder in QMPSNAP_STATE."


class JournalUnwritable(JournalUnusable):
    """Its disk is full, or it may only be read."""

    msg = "nothing can be written into the journal {self.path}: {self.reason}"


def create(path: Path) -> None:
    """
    Make an empty one in one step: a file that is there is a whole journal.

    It has a write-ahead log from the beginning. Switched to one later, it could come back from a
    power failure with a rollback journal, which nobody who only looks may roll back.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{NAME}.")
        os.close(descriptor)
    except OSError as error:
        raise JournalUnwritable(str(path), error.strerror or str(error)) from error
    try:
        database = sqlite3.connect(name, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute(f"PRAGMA application_id={APPLICATION}")
            database.executescript(
                f"BEGIN; {''.join(_STEPS)} PRAGMA user_version={VERSION}; COMMIT;"
            )
        finally:
            database.close()
        with suppress(FileExistsError):  # another process was as quick
            os.link(name, path)
        sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        raise JournalUnwritable(str(path), str(error)) from error
    finally:
        os.unlink(name)


def update(database: sqlite3.Connection) -> None:
    """Bring a database up to date; again, or at the same time as another process: nothing more."""
    database.execute("BEGIN IMMEDIATE")
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        for step in _STEPS[version:]:
            for statement in step.split(";"):  # `executescript` would commit first
                database.execute(statement)
        if version < VERSION:
            database.execute(f"PRAGMA user_version={VERSION}")
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite may have rolled it back by itself
            database.execute("ROLLBACK")
        raise
