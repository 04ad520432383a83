"""Under libvirt; the tests stand in `tests/support/operations.py`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from qmpsnap.demo.libvirt_guest import LibvirtMachine
from tests.support import operations
from tests.support.rig import DISK, Rig


@pytest.fixture
def cancel() -> Callable[[Rig], None]:
    """Another client of libvirt aborts the job without a pivot."""

    def cancel_job(rig: Rig) -> None:
        assert isinstance(rig.guest, LibvirtMachine)
        rig.guest.domain.blockJobAbort(DISK, 0)

    return cancel_job


class TestOperations(operations.Operations):
    pass


class TestDurability(operations.Durability):
    pass


class TestCancelled(operations.Cancelled):
    pass


class TestAttack(operations.Attack):
    pass
