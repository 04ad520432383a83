"""Our service with faults answers as the real one does (`tests/openstack/test_updates.py`)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rig.update_contract import UpdateContract, Volumes
from tests.rig.volume_service import VolumeService


class Faulty:
    """See `Volumes`."""

    snapshot, token = "s1", "admin:p1"

    def __init__(self, service: VolumeService) -> None:
        self._service = service

    @property
    def endpoint(self) -> str:
        return self._service.endpoint.replace("%(project_id)s", "p1")

    def put(self, status: str, progress: str) -> None:
        self._service.rows[self.snapshot].set(status, progress)

    def get(self) -> tuple[str, str]:
        row = self._service.rows[self.snapshot]
        return row.status, row.progress


class TestOurs(UpdateContract):
    @pytest.fixture
    def volumes(self) -> Iterator[Volumes]:
        with VolumeService(is_quick=False) as service:
            service.wait_for("s1", "creating")
            yield Faulty(service)
