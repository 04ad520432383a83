"""A ledger in each database that can be had here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.store import Store, open_engine
from tests.rig import mariadb, postgresql


@pytest.fixture(scope="session", name="mariadb")
def _mariadb() -> Iterator[mariadb.Server]:
    """The same of MariaDB, as strict as it is by default from 11.6.2 on."""
    with mariadb.Server("--innodb-snapshot-isolation=ON") as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own for each test, empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: postgresql.Server | mariadb.Server = request.getfixturevalue(request.param)
    return server.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A ledger."""
    engine = open_engine(url)
    db_sync(engine)
    yield Store(engine)
    engine.dispose()
