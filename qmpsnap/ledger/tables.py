"""
The tables, for SQLite, MySQL and PostgreSQL alike.

Rows are only ever added, but for two that no format depends on: the counter of refused updates,
and a process's presence. What is newest of a file or a snapshot is the row with the highest id;
the row of `qmpsnap_volumes` is what writers of one volume lock, so ids of one volume grow in the
order in which they are committed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

VERSION: Final = 1
"""Of the tables; what `qmpsnap_version` holds."""

METADATA: Final = sa.MetaData()


class UtcTime(sa.TypeDecorator[datetime]):
    """A moment: with a zone in Python, as UTC without one in the database, as Cinder's are."""

    impl = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To the database."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """From it."""
        return None if value is None else value.replace(tzinfo=UTC)


def _name(length: int = 255) -> sa.types.TypeEngine[str]:
    """A name or id: compared byte by byte on MySQL too, whose default knows no capitals."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def _text() -> sa.types.TypeEngine[str]:
    """For people. A database of MySQL may have been made with `utf8`, which lacks most of Unicode."""
    return sa.Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")


def _id() -> sa.Column[int]:
    # SQLite counts up in a column of type INTEGER alone.
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", number, primary_key=True, autoincrement=True)


def _at(name: str = "at") -> sa.Column[datetime]:
    return sa.Column(name, UtcTime(), nullable=False)


version = sa.Table(
    "qmpsnap_version",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    _at(),
)
"""One row each time the tables were made or changed; the highest counts."""

volumes = sa.Table(
    "qmpsnap_volumes",
    METADATA,
    sa.Column("volume", _name(), primary_key=True),
    sa.Column("turn", sa.BigInteger, nullable=False),
)
"""A lock a volume; `turn` counts the transactions that have written to it."""

files = sa.Table(
    "qmpsnap_files",
    METADATA,
    _id(),
    _at(),
    sa.Column("volume", _name(), nullable=False),
    sa.Column("file", _name(), nullable=False),
    sa.Column("format", sa.String(16)),
    sa.Column("base", sa.Boolean, nullable=False),
    sa.Column("backing", _name()),
    sa.Column("place", sa.String(16), nullable=False),
    sa.Column("size", sa.BigInteger),
    sa.Column("encrypted", sa.Boolean),
    sa.Column("witness", sa.String(16), nullable=False),
    sa.Column("detail", _text(), nullable=False),
    sa.Column("operation", _name(64)),
    sa.Column("believed", sa.Boolean, nullable=False),
    sa.Index("qmpsnap_files_of_volume", "volume", "id"),
)
"""Statements of files."""

snapshots = sa.Table(
    "qmpsnap_snapshots",
    METADATA,
    _id(),
    _at(),
    sa.Column("volume", _name(), nullable=False),
    sa.Column("snapshot", _name(), nullable=False),
    sa.Column("state", sa.String(32), nullable=False),
    sa.Column("control", sa.String(16), nullable=False),
    sa.Column("operation", _name(64)),
    sa.Column("why", _text(), nullable=False),
    sa.Index("qmpsnap_snapshots_of_volume", "volume", "id"),
    sa.Index("qmpsnap_snapshots_of_snapshot", "snapshot", "id"),
)
"""States of snapshots."""

operations = sa.Table(
    "qmpsnap_operations",
    METADATA,
    sa.Column("token", _name(64), primary_key=True),
    _at("begun"),
    sa.Column("volume", _name(), nullable=False),
    sa.Column("snapshot", _name(), nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("file", _name()),
    sa.Column("onto", _name()),
    sa.Column("host", _name(), nullable=False),
    sa.Index("qmpsnap_operations_of_volume", "volume"),
)
"""Intents."""

inbox = sa.Table(
    "qmpsnap_inbox",
    METADATA,
    _id(),
    _at(),
    sa.Column("operation", _name(64), nullable=False, unique=True),
    sa.Column("status", sa.String(64), nullable=False),
    sa.Column("file_format", sa.JSON, nullable=False),
    sa.Column("named", sa.Boolean, nullable=False),
    sa.Column("sender", _name(), nullable=False),
)
"""Accepted updates that end an operation: one each."""

refusals = sa.Table(
    "qmpsnap_refusals",
    METADATA,
    sa.Column("snapshot", _name(), primary_key=True),
    sa.Column("reason", sa.String(32), primary_key=True),
    sa.Column("times", sa.BigInteger, nullable=False),
    sa.Column("detail", _text(), nullable=False),
    _at("first"),
    _at("last"),
)
"""Updates that were refused, counted by reason."""

presence = sa.Table(
    "qmpsnap_presence",
    METADATA,
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("host", _name(), primary_key=True),
    sa.Column("version", sa.String(64), nullable=False),
    _at(),
)
"""Processes of ours that have started."""
