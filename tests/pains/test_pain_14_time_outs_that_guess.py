"""
No view of progress, and time-outs that guess: the manager gives up, and the merge goes on.

OpenNebula/one#7616, apache/cloudstack#6836 (an hour). What is seen of a job that runs is in
tests/live/only_qmp/test_jobs.py; here it matters what a time limit means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.operations.job.machine import Decision, Watch
from qmpsnap.operations.job.states import Do
from tests.pains.pain import Guard, Pain
from tests.rig.jobs import ACTIVE, TOP, make_chain
from tests.rig.libvirt_machine import LibvirtDisk, LibvirtMachine
from tests.rig.rig import BASE, DISK, SERIAL, Rig
from tests.rig.roads import libvirt_rig
from tests.rig.waiting import until


def _stop_waiting(watch: Watch, _deadline: float, _now: float) -> Decision:
    """It takes too long, so it has failed."""
    return Decision(Do.GIVE_UP, None, watch)


class TestTimeOutThatGuesses(Pain[Rig]):
    """A failure is reported, and some time later the chain is another one."""

    guard = Guard(where="qmpsnap.operations.job.machine._late", instead=_stop_waiting)

    @pytest.fixture
    def world(self, connection: Any, share: Path, borrowed: None) -> Iterator[Rig]:
        make_chain(share)
        disk = LibvirtDisk(share / ACTIVE, "qcow2", DISK, SERIAL)
        with libvirt_rig(connection, share, "qcow2", disk) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.delete(TOP, BASE, "--bandwidth", "1", "--timeout", "0.3")
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        assert said.code == 5, said
        assert "was cancelled. The chain is as it was" in said.err
        assert world.cli("jobs", "-o", "json").json["jobs"] == []
        assert world.files() == [ACTIVE, TOP, BASE]

    def hurts(self, world: Rig) -> None:
        (job,) = world.cli("jobs", "-o", "json").json["jobs"]
        assert (job["disk"], job["status"]) == (DISK, "running")
        assert world.files() == [ACTIVE, TOP, BASE]
        assert isinstance(world.guest, LibvirtMachine)
        world.guest.domain.blockJobSetSpeed(DISK, 0, 0)
        until(lambda: world.files() == [ACTIVE, BASE])  # it was reported that this had failed
