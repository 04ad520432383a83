"""Where a ledger is: in a database of its own, or in Cinder's, through Cinder's engine."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from qmpsnap.errors import Refused
from qmpsnap.ledger.ledger import Ledger
from qmpsnap.ledger.locking import is_of_class, is_of_database
from qmpsnap.ledger.schema import LedgerMissing, LedgerUnreachable, check, name, patiently

T = TypeVar("T")

WAIT_S: Final = 30
"""For another process that writes to the same SQLite database."""
_TRIES: Final = 10
_AGAIN: Final = frozenset({"40001", "40P01"})
"""PostgreSQL's serialization_failure and deadlock_detected."""
_AGAIN_MYSQL: Final = frozenset({1020, 1205, 1213, 1305})
"""ER_CHECKREAD (MariaDB, innodb_snapshot_isolation), ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK, also of
a Galera node that lost a race; ER_SP_DOES_NOT_EXIST, which hides a deadlock inside of a savepoint:
that ends the transaction, and the savepoint with it."""
_DRIVERS: Final = {
    "postgresql": "postgresql+pg8000",
    "postgres": "postgresql+pg8000",
}
"""Pure Python: a driver in C stops all of an eventlet service while it waits."""
_READS: Final = "qmpsnap_reads"
_IN_MEMORY: Final = ":memory:"


class LedgerUrl(Refused):
    """This is no URL of a database that can be used here."""

    msg = "{self.url!r} is no database for a ledger: {self.reason}"
    remedy = (
        "For example sqlite:////var/lib/qmpsnap/ledger.db, or postgresql://user@host/qmpsnap "
        "(by pg8000)."
    )

    url: str
    reason: str


def open_engine(url: str, *, make: bool = True) -> Engine:
    """
    Open a database by its URL.

    SQLite syncs every transaction to the disk, and a writer takes the lock before it reads.

    Args:
        url: SQLAlchemy's; `postgresql:` means pg8000.
        make: Whether a file of SQLite that is not there is made.

    Raises:
        LedgerUrl: It is none, or its driver is not installed.
        LedgerMissing: The file is not there, and not to be made.
    """
    try:
        parsed = sa.engine.make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        engine = sa.create_engine(parsed, **_options(parsed))
    except (ArgumentError, SQLAlchemyError, ImportError) as error:
        raise LedgerUrl(url, str(error).splitlines()[0]) from error
    if engine.dialect.name == "sqlite":
        path = parsed.database or ""
        if path and path != _IN_MEMORY and not os.path.exists(path):
            if not make:
                raise LedgerMissing(name(engine))
            _make_file(path)
        _tune(engine)
    return engine


def _options(url: URL) -> dict[str, Any]:
    return {"connect_args": {"timeout": WAIT_S}} if url.get_backend_name() == "sqlite" else {}


def _make_file(path: str) -> None:
    """
    Make a database with a write-ahead log, in one step.

    Made in place, it would be switched to that log while other processes use it already. SQLite
    then answers "database is locked" at once, however long it was told to wait: 4 of 1,200 tries.
    What fails here is told by the first connection, which finds no file either. A file that was
    there may be another program's (Cinder's): how it keeps its log is not changed.
    """
    folder, base = os.path.split(os.path.abspath(path))
    with suppress(OSError, sqlite3.Error), TemporaryDirectory(prefix=f".{base}.", dir=folder) as at:
        made = os.path.join(at, base)
        with closing(sqlite3.connect(made)) as database:
            database.execute("PRAGMA journal_mode = WAL")
        os.link(made, path)


def _tune(engine: Engine) -> None:
    """
    Have SQLite begin by itself no transaction, and sync each.

    Source: docs.sqlalchemy.org, "SQLite", "Enabling Non-Legacy SQLite Transactional Modes".
    """

    @sa.event.listens_for(engine, "connect")
    def connected(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = FULL")

    @sa.event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get(_READS, False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


class Store:
    """
    A ledger in a database.

    Args:
        engine: Cinder's, or one of `open_engine`. It stays the caller's to dispose of.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def check(self) -> None:
        """
        See that the tables are there, and of this version.

        Raises:
            LedgerMissing, LedgerOlder, LedgerNewer, LedgerUnreachable: They are not.
        """

        def look() -> None:
            with self._reading() as connection:
                check(connection)

        with self._translating():
            patiently(look)

    @contextmanager
    def reading(self) -> Iterator[Ledger]:
        """Look, in one transaction."""
        with self._translating(), self._reading() as connection:
            yield Ledger(connection)

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        """
        Write, in one transaction: all of it is committed at the end of the block, or nothing.

        `run` does the same, and again where another writer was in the way.
        """
        with self._translating(), self.engine.begin() as connection:
            yield Ledger(connection)

    def run(self, work: Callable[[Ledger], T]) -> T:
        """
        Do something in one transaction, again while the database says that it met another.

        Raises:
            LedgerUnreachable: The database refuses for another reason, or ten times.
        """
        with self._translating():
            for tried in range(_TRIES):
                try:
                    with self.engine.begin() as connection:
                        return work(Ledger(connection))
                except Exception as error:
                    if tried == _TRIES - 1 or not met_another(error):
                        raise
        raise AssertionError  # pragma: no cover

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self.engine.connect() as connection:
            yield connection.execution_options(**{_READS: True})

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_of_database(error):
                raise
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise LedgerUnreachable(name(self.engine), str(reason)) from error


def met_another(error: Exception) -> bool:
    """Whether a transaction failed because of another one, and may be tried again."""
    if is_of_class(error, "DBDeadlock"):  # oslo.db's, in Cinder's engine
        return True
    hidden = getattr(error, "cause", None)  # oslo.db's, of a savepoint that is gone
    if isinstance(hidden, Exception) and is_of_class(hidden, "DBDeadlock"):
        return True
    if not isinstance(error, DBAPIError) or error.orig is None:
        return False
    first = error.orig.args[0] if error.orig.args else None
    if isinstance(first, dict):  # pg8000's
        return first.get("C") in _AGAIN
    code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
    if code in _AGAIN or first in _AGAIN_MYSQL:
        return True
    busy = getattr(error.orig, "sqlite_errorname", "") or ""
    return busy.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def default_url(folder: str | os.PathLike[str]) -> str:
    """Where a ledger is that nobody has named: SQLite in the state folder."""
    return f"sqlite:///{os.path.join(os.fspath(folder), 'ledger.db')}"
