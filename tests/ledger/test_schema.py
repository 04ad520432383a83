"""Making the tables, at once and again, and what else may be found in a database."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateIndex, CreateTable

from qmpsnap.ledger import schema, tables
from qmpsnap.ledger.schema import (
    LedgerMissing,
    LedgerNewer,
    LedgerOlder,
    LedgerUnreachable,
    db_sync,
)
from qmpsnap.ledger.store import LedgerUrl, Store, open_engine
from tests.rig.remedies import remedy
from tests.rig.waiting import HANG_S

_at_once: Barrier


def meet(barrier: Barrier) -> None:
    """In each process."""
    global _at_once
    _at_once = barrier


def sync(url: str) -> int:
    engine = open_engine(url)
    _at_once.wait(HANG_S)
    try:
        return db_sync(engine)
    finally:
        engine.dispose()


def test_eight_processes_make_the_tables_at_once(url: str) -> None:
    spawn = get_context("spawn")
    with ProcessPoolExecutor(8, spawn, meet, (spawn.Barrier(8),)) as pool:
        found = list(pool.map(sync, [url] * 8))
    assert found.count(0) == 1
    assert found.count(tables.VERSION) == 7


def test_a_file_has_its_write_ahead_log_from_the_beginning(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    open_engine(f"sqlite:///{path}").dispose()
    assert list(tmp_path.iterdir()) == [path]
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@remedy("LedgerMissing")
def test_a_database_without_the_tables(url: str) -> None:
    engine = open_engine(url)
    with pytest.raises(LedgerMissing):
        Store(engine).check()
    assert db_sync(engine) == 0
    Store(engine).check()
    engine.dispose()


def test_what_somebody_has_begun_to_make_is_completed(store: Store) -> None:
    """Killed between two statements: on MySQL each stands for itself."""
    (index,) = tables.files.indexes
    with store.engine.begin() as connection:
        index.drop(connection)
        tables.presence.drop(connection)
        connection.execute(sa.delete(tables.version))
    with pytest.raises(LedgerMissing):
        store.check()
    assert db_sync(store.engine) == 0
    there = sa.inspect(store.engine)
    assert [one["name"] for one in there.get_indexes("qmpsnap_files")] == [index.name]
    assert there.has_table("qmpsnap_presence")


def test_tables_of_a_newer_version_are_left_alone(store: Store) -> None:
    with store.engine.begin() as connection:
        _is_of(connection, tables.VERSION + 1)
    for look in (store.check, lambda: db_sync(store.engine)):
        with pytest.raises(LedgerNewer):
            look()


@remedy("LedgerOlder")
def test_tables_of_an_older_version_are_migrated(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []

    def second(connection: Connection) -> None:
        taken.append("second")
        connection.exec_driver_sql("ALTER TABLE qmpsnap_presence ADD COLUMN note VARCHAR(8)")

    def third(_connection: Connection) -> None:
        taken.append("third")

    later: Sequence[schema.Migration] = (second, third)
    monkeypatch.setattr(schema, "MIGRATIONS", later)
    with pytest.raises(LedgerOlder):
        store.check()
    assert db_sync(store.engine) == tables.VERSION
    store.check()
    assert db_sync(store.engine) == tables.VERSION + 2
    assert taken == ["second", "third"]


def test_a_migration_that_fails_leaves_the_version_as_it_was(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE qmpsnap_presence ADD COLUMN note VARCHAR(8)")
        connection.exec_driver_sql("ALTER TABLE no_such_table ADD COLUMN note VARCHAR(8)")

    monkeypatch.setattr(schema, "MIGRATIONS", (broken,))
    with pytest.raises(LedgerUnreachable):
        db_sync(store.engine)
    with pytest.raises(LedgerOlder):
        store.check()
    with store.engine.connect() as connection:
        names = [one["name"] for one in sa.inspect(connection).get_columns("qmpsnap_presence")]
    cannot_undo = store.engine.dialect.name == "mysql"  # a change of a table ends a transaction
    assert ("note" in names) is cannot_undo


@pytest.mark.parametrize("dialect", [mysql, postgresql, sqlite], ids=lambda one: one.__name__)
@pytest.mark.parametrize("table", tables.METADATA.sorted_tables, ids=lambda one: one.name)
def test_the_tables_can_be_written_in_each_dialect(table: sa.Table, dialect: object) -> None:
    language = dialect.dialect()  # type: ignore[attr-defined]
    made = str(CreateTable(table).compile(dialect=language))
    assert made.count("PRIMARY KEY") == 1
    for index in table.indexes:
        assert str(CreateIndex(index).compile(dialect=language))
    if dialect is mysql:
        assert "VARCHAR(255)" not in made or "utf8mb4_bin" in made
        keys = [
            *table.primary_key.columns,
            *(one for index in table.indexes for one in index.columns),
        ]
        assert all(getattr(one.type, "length", 0) in (0, 16, 32, 64, 255, None) for one in keys)


@pytest.mark.parametrize(
    "url", ["", "not a url", "no-such-database://", "mysql+nothing://h/x", "sqlite:////no/such/x"]
)
def test_a_url_that_leads_nowhere(url: str) -> None:
    with pytest.raises((LedgerUrl, LedgerUnreachable)):
        Store(open_engine(url)).check()


def test_a_password_is_never_shown() -> None:
    engine = open_engine("postgresql://u:geheim@127.0.0.1:1/x")
    with pytest.raises(LedgerUnreachable) as caught:
        Store(engine).check()
    assert "geheim" not in str(caught.value)


def _is_of(connection: Connection, version: int) -> None:
    row = {"version": version, "at": datetime.now(UTC)}
    connection.execute(sa.insert(tables.version).values(row))
