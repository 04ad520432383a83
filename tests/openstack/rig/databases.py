"""The database of a rig's Cinder, from outside and inside, whichever it is: by its configuration."""

from __future__ import annotations

import configparser
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url

_WAIT_S: Final = 30
"""For a lock of SQLite's."""


def engine_of(folder: Path) -> Engine:
    """An engine of its own for the database of the Cinder in this folder; it keeps nothing open."""
    return _engine(_url(folder))


def is_sqlite(folder: Path) -> bool:
    """Whether it is a file in the folder of the rig."""
    return make_url(_url(folder)).get_backend_name() == "sqlite"


def make_tables(folder: Path) -> None:
    """Have Cinder make its tables, without bounds for what a project may have."""
    manage = [sys.executable, f"{sys.prefix}/bin/cinder-manage"]
    command = [*manage, "--config-file", str(folder / "cinder.conf"), "db", "sync"]
    with (folder / "log/cinder-manage.out").open("wb") as said:
        subprocess.run(command, stdout=said, stderr=said, check=True)
    rows(folder, "update quota_classes set hard_limit = -1")  # options come too late


def _url(folder: Path) -> str:
    found = configparser.ConfigParser(strict=False, interpolation=None)
    found.read(folder / "cinder.conf")
    return found["database"]["connection"]


@lru_cache
def _engine(url: str) -> Engine:
    waits = {"timeout": _WAIT_S} if make_url(url).get_backend_name() == "sqlite" else {}
    return sa.create_engine(url, poolclass=sa.NullPool, connect_args=waits)


def rows(folder: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Read or change the database, in words that each of them knows; `?` stands for a value."""
    first, *others = query.split("?")
    named = {f"value_{number}": value for number, value in enumerate(values)}
    text = first + "".join(f":{name}{rest}" for name, rest in zip(named, others, strict=True))
    with engine_of(folder).begin() as connection:
        done = connection.execute(sa.text(text), named)
        return [tuple(row) for row in done] if done.returns_rows else []
