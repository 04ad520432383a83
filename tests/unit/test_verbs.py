"""Jobs without a plan, of a guest in memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from qmpsnap.operations.guest import Jobs
from qmpsnap.operations.job import verbs
from qmpsnap.operations.job.states import Heard, JobReport, JobStatus, JobView
from qmpsnap.operations.job.states import Verb as JobVerb
from qmpsnap.operations.job.verbs import (
    POLL_S,
    CancelUnseen,
    JobAmbiguous,
    JobEndedBadly,
    JobGoesOn,
    JobNotFound,
    JobUnsuitable,
    JobWaits,
    find_job,
)
from qmpsnap.operations.options import BadOption
from tests.unit import samples
from tests.unit.fake_guest import JOB, FakeGuest


def report(
    id: str = JOB, disk: str | None = "vda", status: str = "running", ours: bool | None = True
) -> JobReport:
    view = JobView(status=JobStatus(status))
    return JobReport(id=id, type="commit", disk=disk, view=view, bandwidth=0, ours=ours)


def guest(status: str, *views: JobView, ours: bool | None = True) -> FakeGuest:
    fake = FakeGuest(samples.guest(samples.disk(2)), *views)
    fake.reports = [(report(status=status, ours=ours),)]
    return fake


def view(status: str, error: str | None = None) -> JobView:
    return JobView(status=JobStatus(status), error=error)


class TestFind:
    def test_by_id_or_by_disk(self) -> None:
        jobs = (report("a", "vda"), report("b", "vdb"), report("vda", "vdc"))
        assert find_job(jobs, "b").id == find_job(jobs, "vdb").id == "b"
        assert find_job(jobs, "vda").id == "vda"  # an id counts more

    def test_a_disk_with_several(self) -> None:
        with pytest.raises(JobAmbiguous, match="several jobs: a, b"):
            find_job((report("a"), report("b")), "vda")

    @pytest.mark.parametrize("jobs", [(), (report("a", None),)])
    def test_none(self, jobs: tuple[JobReport, ...]) -> None:
        with pytest.raises(JobNotFound, match=r"there is: (none|a)") as caught:
            find_job(jobs, "vda")
        assert caught.value.exit_code == 4


class TestWait:
    @pytest.mark.parametrize("end", ["concluded", "null"])
    def test_until_the_end(self, end: str) -> None:
        fake = guest("running", view("running"), view("waiting"), view("ready"), view(end))
        assert verbs.wait_for(fake, "vda").id == JOB
        assert fake.calls.index("follow") < fake.calls.index("view")
        assert fake.calls.count("wait") == 3
        assert "dismiss" not in fake.calls  # its error is somebody else's to read

    def test_for_a_job_that_fails(self) -> None:
        with pytest.raises(JobEndedBadly, match="No space") as caught:
            verbs.wait_for(guest("running", view("concluded", "No space")), JOB)
        assert caught.value.exit_code == 1

    @pytest.mark.parametrize("status", ["ready", "pending"])
    def test_for_a_job_that_nobody_finishes(self, status: str) -> None:
        fake = guest("running", view("running"), view(status))
        with pytest.raises(JobWaits, match=status) as caught:
            verbs.wait_for(fake, JOB, linger_s=0)
        assert "command again that started it" in caught.value.way_out
        assert "commit" not in fake.calls

    def test_for_one_that_is_finished_in_the_end(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It counts from when it was ready, and anew when it was not in between."""
        clock = SimpleNamespace(monotonic=map(float, count(1_000)).__next__)
        monkeypatch.setattr(verbs, "time", clock)
        ready, running = view("ready"), view("running")
        fake = guest("running", ready, ready, running, ready, ready, running, view("null"))
        assert verbs.wait_for(fake, JOB, linger_s=2).id == JOB
        fake = guest("running", ready, running, ready, ready, ready, view("null"))
        with pytest.raises(JobWaits):
            verbs.wait_for(fake, JOB, linger_s=2)
        assert fake.calls.count("view") == 5

    def test_no_longer_than_asked_for(self) -> None:
        with pytest.raises(JobGoesOn) as caught:
            verbs.wait_for(guest("running", view("running")), JOB, timeout_s=1e-9)
        assert caught.value.changed == "no"

    @pytest.mark.parametrize(
        ("status", "timeout_s", "waits"),
        [
            ("running", None, [POLL_S, POLL_S]),
            ("running", POLL_S + 1.5, [POLL_S, 0.5]),
            ("ready", None, [0.25, 0.25]),
        ],
    )
    def test_how_long_it_waits_for_an_event(
        self,
        status: str,
        timeout_s: float | None,
        waits: list[float],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Not past its time limit; and a job that is ready, or gone, is asked for soon."""
        times = iter([0.0, 0.0, POLL_S + 1.0, POLL_S + 1.0])
        if status == "ready":
            times = iter([0.0, 0.0, 0.125, 0.125])
        monkeypatch.setattr(verbs, "time", SimpleNamespace(monotonic=times.__next__))
        fake = guest("running", view(status), view(status), view("null"))
        waited: list[float] = []
        heard = fake.wait

        def wait(job: str, timeout: float) -> Heard:
            waited.append(timeout)
            return heard(job, timeout)

        monkeypatch.setattr(fake, "wait", wait)
        verbs.wait_for(fake, JOB, timeout_s=timeout_s, linger_s=0.25)
        assert waited == waits

    def test_shows_progress(self) -> None:
        seen: list[str] = []
        fake = guest("running", view("running"), view("null"))
        verbs.wait_for(fake, JOB, progress=lambda one: seen.append(one.view.status))
        assert seen == ["running", "null"]


class TestCancel:
    def test_waits_for_the_end(self) -> None:
        fake = guest("running", view("aborting"))
        fake.cancelled = [view("aborting"), view("null")]
        assert verbs.cancel(fake, "vda").id == JOB
        assert fake.calls[:2] == ["follow", "cancel"]

    def test_leaves_none_of_ours_behind(self) -> None:
        fake = guest("running")
        verbs.cancel(fake, "vda")
        assert fake.calls[-1] == "dismiss"

    def test_leaves_what_others_have_started_to_them(self) -> None:
        fake = guest("running")
        fake.reports = [(replace(fake.reports[0][0], ours=False),)]
        verbs.cancel(fake, "vda")
        assert "dismiss" not in fake.calls

    def test_is_planned_with_its_dismissal(self) -> None:
        _, steps = verbs.planned(guest("running"), JobVerb.CANCEL, "vda")
        assert [one.does for one in steps] == ["cancel", "dismiss"]

    @pytest.mark.parametrize("step", ["cancel", "view", "wait"])
    def test_ctrl_c(self, step: str) -> None:
        fake = guest("running", view("aborting"))
        fake.cancelled, fake.interrupts[step] = [view("aborting"), view("null")], 1
        with pytest.raises(CancelUnseen):
            verbs.cancel(fake, "vda")

    @pytest.mark.parametrize("status", ["aborting", "concluded", "null"])
    def test_is_refused_when_it_is_ending(self, status: str) -> None:
        fake = guest(status)
        with pytest.raises(JobUnsuitable):
            verbs.cancel(fake, JOB)
        assert "cancel" not in fake.calls

    def test_that_comes_too_late(self) -> None:
        fake = guest("running")
        fake.can_cancel = False
        with pytest.raises(JobUnsuitable, match="ending"):
            verbs.cancel(fake, JOB)

    def test_of_a_job_that_does_not_end(self) -> None:
        fake = guest("running", view("running"))
        fake.cancelled = []
        with pytest.raises(JobGoesOn):
            verbs.cancel(fake, JOB, end_s=0)


Verb = Callable[[Jobs, str], JobReport]


def _speed(guest: Jobs, wanted: str) -> JobReport:
    return verbs.set_speed(guest, wanted, 8)


@pytest.mark.parametrize(
    ("verb", "step", "fits"),
    [
        (verbs.pause, "pause", {"created", "running", "ready"}),
        (verbs.resume, "resume", {"paused", "standby"}),
        (_speed, "speed", {"created", "running", "ready", "paused", "standby"}),
    ],
)
def test_what_fits_a_state(verb: Verb, step: str, fits: set[str]) -> None:
    for status in JobStatus:
        fake = guest(status)
        if status in fits:
            assert verb(fake, "vda").id == JOB
            assert step in fake.calls
        else:
            with pytest.raises(JobUnsuitable):
                verb(fake, "vda")
            assert step not in fake.calls


def test_libvirt_hides_the_state_and_says_itself_that_it_cannot_resume() -> None:
    fake = guest("running", ours=None)
    verbs.resume(fake, JOB)
    assert fake.calls == ["resume"]


def test_bandwidth_is_checked_first() -> None:
    fake = guest("running")
    with pytest.raises(BadOption):
        verbs.set_speed(fake, JOB, -1)
    assert fake.calls == []
