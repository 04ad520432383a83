"""All of upstream's tests of Nova's libvirt driver, with our class in place of theirs."""

from __future__ import annotations

import pytest

from tests.openstack.rig.upstream import DRIVER_TESTS, MAY_FAIL, OURS, run_upstream


@pytest.mark.timeout(3600)
def test_the_rest_of_the_driver_is_as_it_was() -> None:
    stock = run_upstream(DRIVER_TESTS)
    ours = run_upstream(f"{DRIVER_TESTS}:{OURS}")
    assert sorted(set(ours["failed"]) - set(stock["failed"])) == sorted(MAY_FAIL)
