"""Making the tables, and bringing older ones up to date: `db-sync`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from qmpsnap.errors import Failed, Refused
from qmpsnap.ledger import tables
from qmpsnap.ledger.locking import is_of_database

Migration = Callable[[Connection], None]
"""Brings the tables to the next version. May be taken again: MySQL cannot roll it back."""
MIGRATIONS: Final[Sequence[Migration]] = ()
"""From version 1 on, in order."""
_TRIES: Final = 5


class LedgerMissing(Refused):
    """The database has no tables of the ledger."""

    msg = "there is no ledger in {self.where}"
    remedy = (
        "`qmpsnap cinder db-sync` makes it in Cinder's database; alone, `qmpsnap ledger import` or "
        "`set` does."
    )

    where: str


class LedgerOlder(Refused):
    """An older version has made the tables."""

    msg = (
        "the ledger in {self.where} is of version {self.found}, and this program's is {self.known}"
    )
    remedy = "Run `qmpsnap cinder db-sync` (or `qmpsnap ledger import`): it adds what is new."

    where: str
    found: int
    known: int


class LedgerNewer(Refused):
    """A later version has made the tables."""

    msg = "the ledger in {self.where} is of version {self.found}; this program knows {self.known}"
    remedy = "Use the newer qmpsnap. Nothing was read or written."

    where: str
    found: int
    known: int


class LedgerUnreachable(Failed):
    """The database cannot be used."""

    msg = "the ledger in {self.where} cannot be used: {self.reason}"
    remedy = "What was not committed is not there; the same command may be given again."

    where: str
    reason: str


def db_sync(engine: Engine) -> int:
    """
    Make the tables, or bring older ones up to date; several processes may do so at once.

    Returns:
        The version that was there before; 0 where there was none.

    Raises:
        LedgerNewer: A later version has made them; nothing is changed.
        LedgerUnreachable: The database refuses.
    """
    for tried in range(_TRIES):
        try:
            return _sync(engine)
        except Exception as error:  # another process makes the same tables just now
            if not is_of_database(error):
                raise
            if tried == _TRIES - 1:
                reason = error.orig if isinstance(error, DBAPIError) else error
                raise LedgerUnreachable(name(engine), str(reason)) from error
    raise AssertionError  # pragma: no cover


def _sync(engine: Engine) -> int:
    with engine.begin() as connection:
        found = version(connection)
        if found > _known():
            raise LedgerNewer(name(engine), found, _known())
        if found == 0:
            tables.METADATA.create_all(connection)
        else:
            for migration in MIGRATIONS[found - tables.VERSION :]:
                migration(connection)
        if found != _known():
            row = {"version": _known(), "at": datetime.now(UTC)}
            connection.execute(sa.insert(tables.version).values(row))
        return found


def _known() -> int:
    return tables.VERSION + len(MIGRATIONS)


def version(connection: Connection) -> int:
    """The version of the tables; 0 where there are none."""
    if not sa.inspect(connection).has_table(tables.version.name):
        return 0
    found = connection.scalar(sa.select(sa.func.max(tables.version.c.version)))
    return int(found or 0)


def check(connection: Connection) -> None:
    """
    See that the tables are those of this program.

    Raises:
        LedgerMissing, LedgerOlder, LedgerNewer: They are not.
    """
    found, where = version(connection), name(connection.engine)
    if found == 0:
        raise LedgerMissing(where)
    if found < _known():
        raise LedgerOlder(where, found, _known())
    if found > _known():
        raise LedgerNewer(where, found, _known())


def name(engine: Engine) -> str:
    """A database's URL, without its password."""
    return engine.url.render_as_string(hide_password=True)
