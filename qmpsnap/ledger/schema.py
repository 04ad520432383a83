"""Making the tables, and bringing older ones up to date: `db-sync`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

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
T = TypeVar("T")
_TRIES: Final = 60
_TRIES_FOR_ANY_REASON: Final = 5
_PAUSE_S: Final = 0.3
_BEING_MADE: Final = frozenset({1050, 1061, 1412, 1684})
"""
MySQL, which ends the transaction at each table: ER_TABLE_EXISTS_ERROR, ER_DUP_KEYNAME,
ER_TABLE_DEF_CHANGED, ER_WARN_I_S_SKIPPED_TABLE (a table that another process is making or changing
just now). Of 100 services that start on an empty database by fours, 73 meet one.
"""


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
    try:
        return patiently(lambda: _sync(engine), tries=_TRIES_FOR_ANY_REASON)
    except Exception as error:
        if not is_of_database(error):
            raise
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise LedgerUnreachable(name(engine), str(reason)) from error


def patiently(work: Callable[[], T], *, tries: int = 1) -> T:
    """
    Do something again while another process is making the tables.

    Args:
        work: What.
        tries: How often, when the database says anything else.
    """
    met = 0
    while True:
        try:
            return work()
        except Exception as error:
            if not is_of_database(error):
                raise
            if _is_being_made(error):
                met += 1
            else:
                tries -= 1
            if not tries or met == _TRIES:
                raise
            time.sleep(random.uniform(0, _PAUSE_S))  # two of one pace would meet again


def _is_being_made(error: Exception) -> bool:
    if not isinstance(error, DBAPIError) or error.orig is None or not error.orig.args:
        return False
    code = error.orig.args[0]
    return isinstance(code, int) and code in _BEING_MADE


def _sync(engine: Engine) -> int:
    with engine.begin() as connection:
        found = version(connection)
        if found > _known():
            raise LedgerNewer(name(engine), found, _known())
        if found == 0:
            tables.METADATA.create_all(connection)
            for table in tables.METADATA.sorted_tables:  # of one who died before its indexes
                for index in table.indexes:
                    index.create(connection, checkfirst=True)
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
