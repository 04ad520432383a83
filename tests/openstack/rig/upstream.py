"""Upstream's own tests, with our class in place of theirs; and which of them may fail, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.openstack.rig.services import ROOT

DRIVER_TESTS: Final = "nova.tests.unit.virt.libvirt.test_driver"
OURS: Final = "nova.virt.libvirt.driver.LibvirtDriver=qmpsnap.openstack.nova.LibvirtDriver"
_CASE: Final = f"{DRIVER_TESTS}.LibvirtVolumeSnapshotTestCase"
_XML: Final = (
    "compares, word by word, stock's snapshot XML sent to a fake domain that libvirt does not know; "
    "ours names the disk by its target, states the format, and looks at the guest before and after"
)
_POLLS: Final = (
    "asserts blockRebase or blockCommit on a fake domain, and that stock then polls for the absence "
    "of a job, which it takes for success"
)
_NETWORK: Final = (
    "a network disk (netfs), which no driver of Nova's makes any more: ours refuses it"
)
_PROBES: Final = "asserts that a guest that is off is rebased by `qemu-img` on a probed format"
_REPORT: Final = "asserts stock's report, which has no format, `90%` on a failure, and is sent once"
MAY_FAIL: Final = {
    f"{_CASE}.test_volume_snapshot_create_{name}": reason
    for name, reason in {
        "can_quiesce_quiesce_required_fails": _XML,
        "cannot_quiesce": _XML,
        "cannot_quiesce_quiesce_required": _XML,
        "libgfapi": _XML,
        "noquiesce": _XML,
        "noquiesce_cannot_quiesce": _XML,
    }.items()
} | {
    f"{_CASE}.test_volume_snapshot_delete_{name}": reason
    for name, reason in {
        "1": _POLLS,
        "relative_1": _POLLS,
        "relative_2": _POLLS,
        "nonrelative_null_base": _POLLS,
        "netdisk_1": _NETWORK,
        "netdisk_relative_1": _NETWORK,
        "netdisk_relative_2": _NETWORK,
        "netdisk_nonrelative_null_base": _NETWORK,
        "when_dom_with_nw_disk_not_running": _NETWORK,
        "when_dom_not_running": _PROBES,
        "when_dom_not_running_and_no_rebase_base": _PROBES,
        "invalid_type": _REPORT,
    }.items()
}


def run_upstream(*targets: str) -> dict[str, Any]:
    """Run tests; see substituted.py."""
    command = [sys.executable, "-Wignore", "-m", "tests.openstack.rig.substituted", *targets]
    with TemporaryDirectory() as state:
        # As [qmpsnap] state_folder of nova.conf; by default it is below Nova's own files here.
        environment = os.environ | {"OS_QMPSNAP__STATE_FOLDER": state}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
    assert done.stdout, done.stderr[-4000:]
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
