"""
A pivot that is not ready, and an active commit that never converges.

twilligon/backup-vm#23, dguerri/LibVirtKvm-scripts#41 and #42, kubevirt/enhancements#322.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations import merge
from qmpsnap.operations.job.machine import Decision, Watch
from qmpsnap.operations.job.states import Do, JobView
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.outcome import Result, TimedOut
from qmpsnap.operations.requests import NamedDeleteRequest
from tests.pains.pain import Guard, Pain
from tests.rig.rig import BASE, DISK, MIB, Rig
from tests.rig.roads import MakeRig

SIZE = 24 * MIB
"""More than a mirror copies at once (16 MiB), so that a limit makes it sleep before it is ready."""
NEWEST = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")


@pytest.fixture
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    """A guest that has written all of its disk since its snapshot."""
    with make_rig("raw", SIZE) as rig:
        rig.create("s1")
        rig.guest.write(DISK, 0, SIZE, 7)
        yield rig


def jobs(rig: Rig) -> list[str]:
    """Types of the guest's jobs."""
    found = rig.guest.qmp("query-jobs")
    assert isinstance(found, list)
    return [job["type"] for job in found]


def assert_busy(rig: Rig) -> None:
    """The job is still there, and keeps everybody else from the disk."""
    assert jobs(rig) == ["commit"]
    assert rig.files() == [f"{BASE}.s1", BASE]
    said = rig.cli("create", DISK, "next")
    assert said.code == 4, said
    assert "has a job that has not ended: commit" in said.err


@dataclass
class Slow:
    """An active commit that is not ready before it has been looked at a few times."""

    rig: Rig
    looks: int = 0

    def delete(self) -> Result:
        with self.rig.host() as host:
            options = MergeOptions(bandwidth=1)
            return merge.delete(host, NEWEST, self._look, options=options, poll_s=0.05)

    def _look(self, _plan: object, view: JobView) -> None:
        self.looks += 1
        if self.looks == 3:
            (job,) = cast(list[dict[str, str]], self.rig.guest.qmp("query-jobs"))
            self.rig.guest.qmp("block-job-set-speed", {"device": job["id"], "speed": 0})


def _pivot_at_once(_view: JobView, watch: Watch, _now: float) -> Decision:
    """The job has been started, so now the pivot; if QEMU does not want to, that was it."""
    if watch.tries:
        return Decision(Do.GIVE_UP, None, watch)
    return Decision(Do.COMMIT, None, replace(watch, tries=1))


class TestPivotThatComesTooEarly(Pain[Slow]):
    """Only the state of the job says that it is ready."""

    guard = Guard(where="qmpsnap.operations.job.loop.decide", instead=_pivot_at_once)

    @pytest.fixture
    def world(self, rig: Rig) -> Slow:
        return Slow(rig)

    def answered(self, world: Slow) -> None:
        try:
            done = world.delete()
        except QmpsnapError as error:
            raise AssertionError(str(error)) from error
        assert world.looks > 3
        assert done.file_format == {BASE: "raw"}
        assert world.rig.files() == [BASE]
        assert jobs(world.rig) == []

    def hurts(self, world: Slow) -> None:
        assert_busy(world.rig)


class WaitsForEver(BaseException):
    """Somebody has lost patience."""


@dataclass
class Endless:
    """An active commit that cannot catch up, and has a time limit."""

    rig: Rig
    looks: int = 0

    def delete(self) -> None:
        options = MergeOptions(bandwidth=1, timeout_s=0.2)
        with self.rig.host() as host:
            merge.delete(host, NEWEST, self._look, options=options, poll_s=0.01)

    def _look(self, _plan: object, _view: JobView) -> None:
        self.looks += 1
        if self.looks > 100:
            raise WaitsForEver


def _wait_for_ever(watch: Watch, _deadline: float, _now: float) -> Decision:
    return Decision(Do.WAIT, None, watch)


class TestCommitThatNeverConverges(Pain[Endless]):
    """Here the limit is what is too slow; in `tests/live/only_qmp/test_jobs.py` it is the guest's writes."""

    guard = Guard(where="qmpsnap.operations.job.machine._late", instead=_wait_for_ever)

    @pytest.fixture
    def world(self, rig: Rig) -> Endless:
        return Endless(rig)

    def answered(self, world: Endless) -> None:
        try:
            with pytest.raises(TimedOut) as caught:
                world.delete()
        except WaitsForEver:
            raise AssertionError("its time is long over, and it waits") from None
        assert caught.value.exit_code == 5
        assert world.rig.files() == [f"{BASE}.s1", BASE]
        assert jobs(world.rig) == []
        assert world.rig.cli("create", DISK, "next").code == 0

    def hurts(self, world: Endless) -> None:
        assert_busy(world.rig)
