"""The job loop with a guest in memory: limits, wishes, cancelled jobs, connections that break."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError, Unknown
from qmpsnap.monitor.base import CommandFailed, ConnectionLost, LostInMidCommand
from qmpsnap.operations import merge
from qmpsnap.operations.job import loop
from qmpsnap.operations.job.loop import JobSteps
from qmpsnap.operations.job.machine import Limits
from qmpsnap.operations.job.notices import Notice, Reconnected, StoppedByError, TimeIsUp
from qmpsnap.operations.job.states import Heard, IoStatus, JobFailed, JobStatus, JobView
from qmpsnap.operations.options import MergeOptions, OnError
from qmpsnap.operations.outcome import (
    LeftRunning,
    OutcomeUnknown,
    Result,
    StillRunning,
    TimedOut,
)
from qmpsnap.operations.requests import DeleteRequest
from qmpsnap.operations.step import Does, Step
from tests.unit import samples
from tests.unit.fake_guest import CONCLUDED, JOB, FakeGuest, report, step

COMMIT = DeleteRequest(disk="1", file_to_merge="volume-1.s1", merge_target_file="volume-1")
ACTIVE = DeleteRequest(disk="1", file_to_merge="volume-1.s2", merge_target_file="volume-1")
MERGES = (COMMIT, ACTIVE)
AT_ONCE = MergeOptions(timeout_s=1e-9)
SHORT = Limits(grace_s=0.0, tries=3)


NOT_FLUSHED = "Error flushing drive: Input/output error\r\n"


def guest(*views: JobView) -> FakeGuest:
    return FakeGuest(samples.guest(samples.disk(3)), *views)


def view(status: str, error: str | None = None) -> JobView:
    return JobView(status=JobStatus(status), error=error)


def deleted(
    fake: FakeGuest,
    request: DeleteRequest = COMMIT,
    *,
    options: MergeOptions = MergeOptions(),  # noqa: B008
    limits: Limits = SHORT,
    told: list[Notice] | None = None,
) -> Result:
    tell = None if told is None else told.append
    return merge.delete(fake, request, options=options, tell=tell, poll_s=0, limits=limits)


class TestWishes:
    def test_reach_the_job(self) -> None:
        fake = guest()
        wishes = MergeOptions(bandwidth=8, on_error=OnError.PAUSE, timeout_s=60)
        assert deleted(fake, options=wishes).file_format
        assert fake.options == wishes
        assert fake.speeds == []

    @pytest.mark.parametrize("status", ["running", "paused", "ready", "standby"])
    def test_a_job_that_is_taken_up_gets_the_bandwidth(self, status: str) -> None:
        fake = guest(view(status), CONCLUDED)
        fake.left_running, fake.left_as = True, view(status)
        assert deleted(fake, options=MergeOptions(bandwidth=0)).file_format
        assert fake.speeds == [0]

    @pytest.mark.parametrize("status", ["waiting", "pending"])
    def test_a_job_that_has_nothing_to_copy_gets_none(self, status: str) -> None:
        fake = guest(view(status), CONCLUDED)
        fake.left_running, fake.left_as = True, view(status)
        assert deleted(fake, options=MergeOptions(bandwidth=8)).file_format
        assert fake.speeds == []

    def test_a_job_that_had_ended_is_told_as_it_ended(self) -> None:
        fake = guest()
        fake.left_running, fake.left_as = True, view("concluded", "No space left on device")
        with pytest.raises(JobFailed, match="No space left"):
            deleted(fake, options=MergeOptions(bandwidth=8))
        assert fake.calls == ["read", "dismiss", "read"]

    def test_a_job_that_is_taken_up_keeps_its_bandwidth_when_none_is_given(self) -> None:
        fake = guest(view("running"), CONCLUDED)
        fake.left_running = True
        assert deleted(fake).file_format
        assert fake.speeds == []


class TestTimeLimit:
    """OpenNebula#7616, cloudstack#6836: time-outs that guess, and leave nobody knows what."""

    @pytest.mark.parametrize("request_", MERGES)
    def test_leaves_the_chain_as_it_was(self, request_: DeleteRequest) -> None:
        fake, told = guest(view("running")), list[Notice]()
        with pytest.raises(TimedOut, match=r"volume-1 <- volume-1\.s1 <- volume-1\.s2") as caught:
            deleted(fake, request_, options=AT_ONCE, told=told)
        assert (caught.value.exit_code, caught.value.changed) == (5, "no")
        assert told == [TimeIsUp(job="job0", cancelled=True)]
        assert fake.calls[-4:] == ["view", "settled", "dismiss", "read"]
        assert fake.calls.count("cancel") == 1

    def test_is_no_failure_when_the_merge_was_faster_than_the_cancel(self) -> None:
        fake = guest(view("running"))
        fake.cancelled = [CONCLUDED]
        assert deleted(fake, options=AT_ONCE).file_format == {"volume-1": "raw"}
        assert "cancel" in fake.calls

    def test_a_job_that_cannot_be_cancelled_and_does_not_end_is_called_unknown(self) -> None:
        fake = guest(view("running"))
        fake.can_cancel, fake.cancelled = False, []
        with pytest.raises(StillRunning) as caught:
            deleted(fake, options=AT_ONCE)
        assert isinstance(caught.value, Unknown)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")
        assert "dismiss" not in fake.calls

    @pytest.mark.parametrize("request_", MERGES)
    def test_a_job_that_may_be_somebody_elses_is_not_cancelled(
        self, request_: DeleteRequest
    ) -> None:
        fake, told = guest(view("running")), list[Notice]()
        fake.left_running, fake.left_ours = True, None
        if request_ is ACTIVE:  # a mirror tells whose it is by its target
            fake.reports = [(replace(report(type_="commit", view=view("running")), ours=None, target="/share/volume-1"),)]  # fmt: skip
        with pytest.raises(LeftRunning, match=r"did not end within 1e-09 s") as caught:
            deleted(fake, request_, options=AT_ONCE, told=told)
        assert (caught.value.exit_code, caught.value.changed) == (6, "unknown")
        assert told == []
        assert "cancel" not in fake.calls

    def test_a_job_that_is_ours_and_taken_up_is_cancelled(self) -> None:
        fake = guest(view("running"))
        fake.left_running = True
        with pytest.raises(TimedOut):
            deleted(fake, options=AT_ONCE)
        assert "cancel" in fake.calls

    def test_a_job_that_somebody_else_cancelled_is_not_called_late(self) -> None:
        fake = guest(view("concluded", "Operation canceled"))
        with pytest.raises(JobFailed):
            deleted(fake, options=AT_ONCE)


class TestCommit:
    """twilligon/backup-vm#23, LibVirtKvm-scripts#42: the pivot comes too early, and that is it."""

    def test_is_tried_again(self) -> None:
        fake = guest(view("ready"), view("ready"), view("ready"), CONCLUDED)
        fake.pivots = [False, False, True]
        assert deleted(fake, ACTIVE).file_format
        assert fake.calls.count("commit") == 3

    def test_has_a_bound_for_somebody_elses_job_as_well(self) -> None:
        fake = guest(view("ready"))
        fake.pivots, fake.left_running, fake.left_ours = [False], True, None
        with pytest.raises(LeftRunning, match="cannot change the chain now"):
            deleted(fake, COMMIT)
        assert "cancel" not in fake.calls

    def test_of_another_chain_leaves_somebody_elses_job(self) -> None:
        fake = guest(view("pending"))
        fake.left_running, fake.left_ours = True, None
        fake.meanwhile["view"] = samples.guest(samples.disk(4))
        with pytest.raises(LeftRunning, match="the chain has changed"):
            deleted(fake, COMMIT)
        assert "cancel" not in fake.calls

    def test_that_cannot_be_flushed_leaves_somebody_elses_job(self) -> None:
        fake = guest(view("pending"))
        fake.flushes, fake.said, fake.left_running, fake.left_ours = True, NOT_FLUSHED, True, None
        with pytest.raises(LeftRunning, match="could not be flushed: Error flushing drive"):
            deleted(fake, COMMIT)
        assert "cancel" not in fake.calls

    @pytest.mark.parametrize(("request_", "status"), [(COMMIT, "pending"), (ACTIVE, "ready")])
    def test_that_cannot_be_flushed_cancels_ours(
        self, request_: DeleteRequest, status: str
    ) -> None:
        """Nothing is told to change the chain; what the job itself says when it ends is no reason."""
        fake = guest(view(status))
        fake.flushes, fake.said = True, NOT_FLUSHED
        with pytest.raises(JobFailed, match="could not be flushed: Error flushing drive") as caught:
            deleted(fake, request_)
        assert (caught.value.exit_code, "canceled" in str(caught.value)) == (5, False)
        assert [one for one in fake.calls if one in ("flush", "commit", "cancel", "dismiss")] == [
            "flush",
            "cancel",
            "dismiss",
        ]

    def test_that_cannot_be_flushed_waits_for_no_more_than_its_grace(self) -> None:
        fake = guest(view("pending"))
        fake.flushes, fake.said, fake.cancelled = True, NOT_FLUSHED, []
        with pytest.raises(StillRunning):
            deleted(fake)
        assert fake.calls.count("flush") == 1, "it was told to end"

    def test_has_a_bound_that_leaves_the_chain_as_it_was(self) -> None:
        fake = guest(view("ready"))
        fake.pivots = [False]
        with pytest.raises(JobFailed, match="cannot change the chain now") as caught:
            deleted(fake, ACTIVE)
        assert caught.value.exit_code == 5
        assert fake.calls.count("commit") == 3
        assert fake.calls.count("cancel") == 1


class TestNoSpace:
    """lxc/incus#2693, oVirt/vdsm#352."""

    def test_pause_says_how_much_is_missing_and_where(self) -> None:
        stopped = JobView(
            status=JobStatus.PAUSED, current=1024, total=8192, io_status=IoStatus.NOSPACE
        )
        told: list[Notice] = []
        assert deleted(guest(stopped, stopped, CONCLUDED), told=told).file_format
        (notice,) = told
        assert isinstance(notice, StoppedByError)
        assert "no space left (writing volume-1, which takes 2 KiB" in str(notice)
        assert "1 KiB free on /share: up to 6 KiB more are needed" in str(notice)
        assert "`qmpsnap job resume`" in str(notice)

    def test_failure_says_where(self) -> None:
        with pytest.raises(JobFailed, match=r"No space left on device \(writing .* on /share\)"):
            deleted(guest(view("concluded", "No space left on device")))

    def test_another_failure_does_not(self) -> None:
        with pytest.raises(JobFailed, match=r"failed: Input/output error\. The chain"):
            deleted(guest(view("concluded", "Input/output error")))


class Timed(FakeGuest):
    """Notes how long an event was waited for."""

    waited: list[float]

    def wait(self, job: str, timeout: float) -> Heard:
        self.waited.append(timeout)
        return super().wait(job, timeout)


@pytest.mark.parametrize(
    ("status", "heard", "limit", "poll", "waits"),
    [
        ("running", Heard(), None, 5.0, [5.0, 5.0]),
        ("running", Heard(ended=True), None, 5.0, [5.0, loop.SOON_S]),
        ("null", Heard(), None, 5.0, [loop.SOON_S, loop.SOON_S]),
        ("null", Heard(), None, 0.01, [0.01, 0.01]),
        ("null", Heard(), 60.0, 5.0, [loop.SOON_S, loop.SOON_S]),
        ("running", Heard(), 60.0, 5.0, [5.0, 5.0]),
        ("running", Heard(), 3.0, 5.0, [3.0, 3.0]),
        ("running", Heard(), 0.0, 5.0, [5.0]),
    ],
    ids=[
        "runs",
        "has ended",
        "is gone",
        "polled fast",
        "gone, limited",
        "limited",
        "soon up",
        "up",
    ],
)
def test_how_long_an_event_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
    status: str,
    heard: Heard,
    limit: float | None,
    poll: float,
    waits: list[float],
) -> None:
    """Not past the time limit; and a job that is gone, or was said to have ended, is asked for soon."""
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    fake = Timed(samples.guest(samples.disk(3)), view(status), view(status), CONCLUDED)
    fake.waited, fake.heard = [], heard
    steps = JobSteps(cancel=step(Does.CANCEL), commit=step(Does.COMMIT))
    seen = loop.Loop(
        guest=fake,
        kind="commit",
        file="f",
        job=JOB,
        steps=steps,
        changed=lambda: (),
        poll_s=poll,
    ).to_the_end(limit)
    assert seen.status is JobStatus.CONCLUDED
    assert fake.waited == waits


LOST: list[QmpsnapError] = [
    ConnectionLost("query-jobs", "gone"),
    LostInMidCommand("query-jobs", "gone"),
]


class TestReconnect:
    """oVirt/vdsm, lxc/incus#4054: the connection breaks in mid-job, and the merge is abandoned."""

    @pytest.mark.parametrize("gone", LOST)
    @pytest.mark.parametrize("step", ["view", "wait", "commit", "dismiss", "close"])
    def test_in_any_step_of_a_commit(self, step: str, gone: QmpsnapError) -> None:
        looks = [view("running"), *[view("pending")] * (2 if step == "commit" else 1), CONCLUDED]
        fake, told = guest(*looks), list[Notice]()
        fake.fails[step], fake.reconnects = gone, [True]
        assert deleted(fake, told=told).file_format == {"volume-1": "raw"}
        assert fake.errors == [gone]
        assert told == [Reconnected(job="job0", reason=str(gone))]
        assert fake.calls.count("commit") == (2 if step == "commit" else 1)

    def test_in_a_pivot(self) -> None:
        fake = guest(view("ready"), view("ready"), CONCLUDED)
        fake.fails["commit"], fake.reconnects = LOST[1], [True]
        assert deleted(fake, ACTIVE).file_format
        assert fake.calls.count("commit") == 2

    def test_in_a_cancel(self) -> None:
        fake = guest(view("running"))
        fake.fails["cancel"], fake.reconnects = LOST[1], [True]
        with pytest.raises(TimedOut):
            deleted(fake, options=AT_ONCE)
        assert fake.calls.count("cancel") == 2

    def test_before_the_last_reading(self) -> None:
        class Breaks(FakeGuest):
            def take(self, step: Step) -> object:
                if step.does is Does.CLOSE:
                    self.fails["read"] = LOST[0]
                return super().take(step)

        fake = Breaks(samples.guest(samples.disk(3)))
        fake.reconnects = [True]
        assert deleted(fake).file_format

    def test_in_the_dismissal_of_a_failed_job_does_not_lose_its_error(self) -> None:
        """It is gone afterwards, and says nothing any more."""
        fake = guest(view("concluded", "No space left on device"), view("null"))
        fake.fails["dismiss"], fake.reconnects = LOST[1], [True]
        with pytest.raises(JobFailed, match="No space left"):
            deleted(fake)

    @pytest.mark.parametrize("gone", LOST)
    def test_that_does_not_succeed(self, gone: QmpsnapError) -> None:
        fake = guest(view("running"))
        fake.fails["wait"] = gone
        with pytest.raises(OutcomeUnknown):
            deleted(fake)

    def test_is_left_to_the_host_to_decide(self) -> None:
        fake = guest(view("running"))
        fake.fails["view"] = CommandFailed("query-jobs", "GenericError", "no")
        with pytest.raises(OutcomeUnknown):
            deleted(fake)
        assert fake.errors == [fake.fails["view"]]
