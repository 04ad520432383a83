"""Upstream's own tests of what we replace, with our class in place of theirs."""

from __future__ import annotations

from tests.openstack.rig.upstream import DRIVER_TESTS, MAY_FAIL, OURS, run_upstream


def test_novas_tests_of_volume_snapshots() -> None:
    result = run_upstream(f"{DRIVER_TESTS}@LibvirtVolumeSnapshotTestCase:{OURS}")
    assert sorted(result["failed"]) == sorted(MAY_FAIL)  # one that passes by now leaves the list
    assert result["passed"] + len(result["failed"]) == 26


def test_novas_tests_of_the_api_that_cinder_calls() -> None:
    result = run_upstream("nova.tests.unit.api.openstack.compute.test_assisted_snapshots")
    assert result == {"passed": 21, "skipped": 0, "failed": []}
