"""A ledger in each database that can be had here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.ledger.schema import db_sync
from qmpsnap.ledger.store import Store, open_engine
from tests.rig.postgresql import Server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """One private server a session."""
    with Server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of its own for each test, empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    server: Server = request.getfixturevalue("postgresql")
    return server.database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """A ledger."""
    engine = open_engine(url)
    db_sync(engine)
    yield Store(engine)
    engine.dispose()
