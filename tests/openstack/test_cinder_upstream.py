"""
Upstream's own unit tests of the RemoteFS family and of the API's action, with our classes in them.

They hold what our classes share with their parents: signatures, the order of calls, what is asked
of whom. No test there calls `do_setup` and goes on, so they know no ledger; the rigs do.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

OURS = "qmpsnap.openstack.cinder"
UNIT = "cinder.tests.unit"
ALLOWED: dict[str, str] = {}
"""Tests that may fail, by name, and why."""
SUITES = {
    f"{UNIT}.volume.drivers.test_remotefs:remotefs.RemoteFSSnapDriver={OURS}.RemoteFSSnapDriver": 107,
    f"{UNIT}.volume.drivers.test_nfs:nfs.NfsDriver={OURS}.NfsDriver": 101,
    f"{UNIT}.volume.drivers.test_quobyte:quobyte.QuobyteDriver={OURS}.QuobyteDriver": 103,
    f"{UNIT}.volume.drivers.test_vzstorage:vzstorage.VZStorageDriver={OURS}.VZStorageDriver": 26,
    f"{UNIT}.api.contrib.test_snapshot_actions:snapshot_actions.SnapshotActionsController="
    f"{OURS}.SnapshotActionsController": 8,
}


@pytest.mark.parametrize("suite", SUITES, ids=lambda it: it.partition(":")[0].rpartition(".")[2])
def test_upstreams_tests_pass_with_our_classes(suite: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-Wignore", "-m", "tests.openstack.substituted", suite],
        capture_output=True,
        text=True,
        check=False,
    )
    counts, *failed = done.stdout.strip().splitlines()
    passed = int(counts.split()[0])
    assert {*failed} - ALLOWED.keys() == set(), done.stderr[-4000:]
    assert passed + len(failed) == SUITES[suite]
