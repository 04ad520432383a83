"""The direct road; the tests stand in `tests/support/operations.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support import operations
from tests.support.rig import Rig


@pytest.fixture
def cancel() -> Callable[[Rig], None]:
    """Another client of the same QEMU cancels its one job softly."""

    def cancel_job(rig: Rig) -> None:
        jobs = rig.guest.qmp("query-jobs")
        assert isinstance(jobs, list)
        rig.guest.qmp("block-job-cancel", {"device": jobs[0]["id"]})

    return cancel_job


class TestOperations(operations.Operations):
    pass


class TestDurability(operations.Durability):
    pass


class TestCancelled(operations.Cancelled):
    pass


class TestAttack(operations.Attack):
    pass
