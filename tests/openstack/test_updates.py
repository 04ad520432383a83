"""What a real stock Cinder answers to status updates; our service with faults is held to the same."""

from __future__ import annotations

import datetime

import pytest

from tests.openstack.rig.layout import TOKEN
from tests.openstack.rig.rig import Rig
from tests.rig.update_contract import UpdateContract, Volumes


class Real:
    """See `Volumes`."""

    token = TOKEN

    def __init__(self, rig: Rig, snapshot: str) -> None:
        self._rig, self.snapshot = rig, snapshot

    @property
    def endpoint(self) -> str:
        return self._rig.layout.cinder

    def put(self, status: str, progress: str) -> None:
        """As Cinder's driver does: every change of a row has its time."""
        now = datetime.datetime.now(tz=datetime.UTC).replace(tzinfo=None)
        self._rig.rows(
            "update snapshots set status = ?, progress = ?, updated_at = ? where id = ?",
            status,
            progress,
            str(now),
            self.snapshot,
        )

    def get(self) -> tuple[str, str]:
        return self._rig.progress(self.snapshot)


@pytest.fixture(scope="module")
def snapshot(stock: Rig) -> str:
    """One that nobody waits for: a row to be put into every state."""
    snapshot, became, _ = stock.snapshot(stock.create_volume())
    assert became == "available"
    return snapshot


class TestReal(UpdateContract):
    @pytest.fixture
    def volumes(self, stock: Rig, snapshot: str) -> Volumes:
        return Real(stock, snapshot)
