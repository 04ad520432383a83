"""What every part of the ledger does with a connection."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from qmpsnap.ledger import tables

LONGEST: Final = 4000
"""Characters of a text that people read; TEXT of MySQL ends at 65,535 bytes."""


class OnConnection:
    """
    Part of a ledger, in the transaction of a connection.

    Args:
        connection: Its transaction is the caller's to commit.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def lock(self, volume: str) -> None:
        """
        Wait for whoever else writes to this volume, until the end of its transaction.

        A change of a row, so that SQLite takes its lock as well, and before anything is read.
        """
        add = sa.insert(tables.volumes).values(volume=volume, turn=1)
        self._change_or_add(_turn(volume), add)

    def lock_known(self, volume: str) -> bool:
        """Do the same, but add no row; whether anything was ever written of this volume."""
        return self.connection.execute(_turn(volume)).rowcount > 0

    def _change_or_add(self, change: sa.Update, add: sa.Insert) -> None:
        """Change a row; add it where there is none, though another process may do so as well."""
        if self.connection.execute(change).rowcount:
            return
        try:
            with self.connection.begin_nested():
                self.connection.execute(add)
        except Exception as error:
            if not is_duplicate(error):
                raise
            self.connection.execute(change)


def _turn(volume: str) -> sa.Update:
    counted = tables.volumes.c
    return sa.update(tables.volumes).where(counted.volume == volume).values(turn=counted.turn + 1)


def is_duplicate(error: Exception) -> bool:
    """Whether a row was there already; oslo.db has a class of its own for it."""
    return isinstance(error, IntegrityError) or is_of_class(error, "DBDuplicateEntry")


def shared(query: sa.Select[Any], now: bool) -> sa.Select[Any]:
    """A query for rows that nobody changes, as it is, or seeing what was committed just now."""
    return query.with_for_update(read=True) if now else query


def is_of_database(error: Exception) -> bool:
    """Whether a database, or the way to it, has failed; oslo.db has classes of its own for that."""
    return isinstance(error, SQLAlchemyError) or is_of_class(error, "DBError")


def is_of_class(error: Exception, name: str) -> bool:
    """Whether an error is of a class of this name, or of one made of it; oslo.db is not here."""
    return any(one.__name__ == name for one in type(error).__mro__)


def printable(text: str, longest: int = LONGEST) -> str:
    """What every database takes: no NUL (PostgreSQL), no lone surrogate, not too long (MySQL)."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()[:longest]


def time_now() -> datetime:
    """The time, as rows have it."""
    return datetime.now(UTC)
