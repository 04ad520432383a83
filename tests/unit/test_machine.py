"""The machine that decides about a running job: no guest, no clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from qmpsnap.operations.job.machine import Decision, Limits, Watch, Why, decide, watch
from qmpsnap.operations.job.notices import (
    DoesNotConverge,
    GoesOn,
    Notice,
    PausedBySomebody,
    StoppedByError,
    TimeIsUp,
)
from qmpsnap.operations.job.states import Do, Heard, IoStatus, JobStatus, JobView, next_for

LIMITS = Limits(grace_s=30, tries=3, window_s=10, again_s=60)
MIB = 1024 * 1024
READY, PENDING = JobStatus.READY, JobStatus.PENDING


def begin(timeout_s: float | None = None) -> Watch:
    return watch("job0", 0.0, timeout_s, LIMITS)


def look(status: str, current: int = 0, total: int = 0, io: str = "ok") -> JobView:
    return JobView(status=JobStatus(status), current=current, total=total, io_status=IoStatus(io))


def after(state: Watch, *looks: tuple[float, JobView]) -> Decision:
    """The last of several steps."""
    decided = Decision(Do.WAIT, None, state)
    for now, view in looks:
        decided = decide(view, decided.watch, now)
    return decided


def said(state: Watch, looks: Iterable[tuple[float, JobView]]) -> list[Notice]:
    """What is said, at whatever time the clock begins."""
    looks = tuple(looks)
    first, second = (_said(state, looks, since) for since in (0.0, 1e6))
    assert first == second
    return first


def _said(state: Watch, looks: Iterable[tuple[float, JobView]], since: float) -> list[Notice]:
    notices = []
    for now, view in looks:
        decided = decide(view, state, since + now)
        state = decided.watch
        if decided.say is not None:
            notices.append(decided.say)
    return notices


class TestTable:
    @pytest.mark.parametrize("status", JobStatus)
    def test_every_state(self, status: JobStatus) -> None:
        for state in (begin(), begin(60)):
            state = state.hears(Heard(ended=True))
            assert decide(look(status), state, 59).do is next_for(look(status))

    @pytest.mark.parametrize("status", ["ready", "pending"])
    def test_what_was_taken_is_not_sent_again(self, status: str) -> None:
        state = begin().told(JobStatus(status), 1)
        assert decide(look(status), state, 2).do is Do.WAIT


class TestCommit:
    def test_is_tried_again_while_the_mirror_is_not_ready_after_all(self) -> None:
        tried = [after(begin(), *[(n, look("ready")) for n in range(k)]).do for k in (1, 2, 3)]
        assert tried == [Do.COMMIT] * 3

    def test_has_a_bound_and_then_the_chain_stays_as_it_was(self) -> None:
        given_up = after(begin(), *[(n, look("ready")) for n in range(4)])
        assert given_up.do is Do.CANCEL
        assert given_up.watch.cancelled == (Why.NOT_READY, 3)


class TestGone:
    """A job that is not there any more has ended; how, only an event says, and that may be lost."""

    def test_its_event_is_waited_for(self) -> None:
        gone = decide(look("null"), begin(), 5)
        assert (gone.do, gone.watch.gone_since) == (Do.WAIT, 5)
        assert decide(look("null"), gone.watch, 6.9).do is Do.WAIT

    def test_an_event_that_was_lost_is_not_waited_for_longer(self) -> None:
        assert after(begin(), (5, look("null")), (7, look("null"))).do is Do.END

    @pytest.mark.parametrize("failed", [False, True])
    def test_with_its_event_it_has_ended(self, failed: bool) -> None:
        heard = begin().hears(Heard(ended=True, failed=failed))
        assert decide(look("null"), heard, 0).do is Do.END

    def test_a_reason_alone_is_not_the_end(self) -> None:
        """Of a failure QEMU's own event comes first, and libvirt's says that it was one."""
        assert decide(look("null"), begin().hears(Heard(reason="no space")), 0).do is Do.WAIT

    def test_its_own_error_is_enough(self) -> None:
        view = JobView(status=JobStatus.NULL, error="no space")
        assert decide(view, begin(), 0).do is Do.END

    def test_one_that_is_there_again_was_not_gone(self) -> None:
        again = after(begin(), (5, look("null")), (6, look("running")))
        assert again.watch.gone_since is None

    @pytest.mark.parametrize(
        ("heard", "error"),
        [
            ((Heard(ended=True),), None),
            ((Heard(reason="no space"), Heard(ended=True, failed=True)), "no space"),
            ((Heard(ended=True, failed=True), Heard()), "nobody says why"),
            ((Heard(reason="a"), Heard(ended=True, failed=True, reason="b")), "a"),
        ],
    )
    def test_what_was_heard_of_its_end(self, heard: tuple[Heard, ...], error: str | None) -> None:
        state = begin()
        for one in heard:
            state = state.hears(one)
        assert (state.heard.ended, state.heard.error) == (True, error)


class TestTimeLimit:
    @pytest.mark.parametrize(
        "status",
        ["undefined", "created", "running", "paused", "standby", "ready", "waiting", "pending"],
    )
    def test_cancels_what_has_not_begun_to_change_the_chain(self, status: str) -> None:
        late = decide(look(status), begin(10), 10)
        assert late.do is Do.CANCEL
        assert late.say == TimeIsUp(job="job0", cancelled=True)
        assert late.watch.cancelled == (Why.TIMEOUT, 10)

    @pytest.mark.parametrize("status", ["concluded", "null"])
    def test_is_nothing_to_a_job_that_has_ended(self, status: str) -> None:
        state = begin(10).hears(Heard(ended=True))
        assert decide(look(status), state, 99).do is Do.END

    def test_is_nothing_to_a_job_that_aborts_by_itself(self) -> None:
        assert decide(look("aborting"), begin(10), 11).do is Do.WAIT

    def test_cancels_once_and_gives_up_after_a_while(self) -> None:
        state = decide(look("running"), begin(10), 10).watch
        assert decide(look("aborting"), state, 11).do is Do.WAIT
        assert decide(look("running"), state, 40).do is Do.WAIT
        assert decide(look("running"), state, 40.1).do is Do.GIVE_UP
        assert decide(look("concluded"), state, 99).do is Do.END

    def test_lets_a_finalize_end(self) -> None:
        state = begin(10).told(PENDING, 9)
        late = decide(look("pending"), state, 11)
        assert (late.do, late.say) == (Do.WAIT, TimeIsUp(job="job0", cancelled=False))
        assert decide(look("pending"), late.watch, 12) == Decision(Do.WAIT, None, late.watch)
        assert decide(look("pending"), late.watch, 40).do is Do.WAIT
        assert decide(look("pending"), late.watch, 40.1).do is Do.GIVE_UP

    def test_lets_a_pivot_end_and_then_cancels_it(self) -> None:
        state = begin(10).told(READY, 9)
        late = decide(look("ready"), state, 11)
        assert late.do is Do.WAIT
        cancelled = decide(look("ready"), late.watch, 40.1)
        assert cancelled.do is Do.CANCEL
        assert decide(look("ready"), cancelled.watch, 70).do is Do.WAIT
        assert decide(look("ready"), cancelled.watch, 70.2).do is Do.GIVE_UP

    def test_counts_the_grace_of_a_pivot_that_came_late_from_the_pivot(self) -> None:
        state = begin(10).told(READY, 25)
        assert decide(look("ready"), state, 54).do is Do.WAIT

    @given(
        st.lists(
            st.tuples(st.floats(0, 5), st.sampled_from(list(JobStatus)), st.booleans()), max_size=60
        )
    )
    def test_whatever_happens_it_ends_some_time(
        self, story: list[tuple[float, JobStatus, bool]]
    ) -> None:
        """A job in any order of states: once its time is up, the bound is known."""
        state, now, cancels = begin(10), 0.0, 0
        for pause, status, taken in story:
            now += pause
            decided = decide(JobView(status=status), state, now)
            state = decided.watch
            cancels += decided.do is Do.CANCEL
            if decided.do is Do.COMMIT:
                assert state.committed is None
                assert state.cancelled is None
                if taken:
                    state = state.told(status, now)
        assert cancels <= 1
        last = decide(look("running"), state, now + 200)
        assert last.do in (Do.CANCEL, Do.GIVE_UP)
        assert decide(look("running"), last.watch, now + 400).do is Do.GIVE_UP


class TestPause:
    """oVirt/vdsm#352: space runs out in a merge, and nobody says where, or how much."""

    def test_on_an_error_is_said_once(self) -> None:
        stopped = look("paused", 4 * MIB, 16 * MIB, "nospace")
        notices = said(begin(), [(n, stopped) for n in range(5)])
        assert notices == [StoppedByError(job="job0", why=IoStatus.NOSPACE, left=12 * MIB)]

    def test_that_follows_a_resume_too_soon_is_said_again(self) -> None:
        looks = [
            (0.0, look("paused", 4, 16, "nospace")),
            (1.0, look("paused", 5, 16, "nospace")),
            (2.0, look("running", 6, 16)),
            (3.0, look("paused", 6, 16, "failed")),
        ]
        assert said(begin(), looks) == [
            StoppedByError(job="job0", why=IoStatus.NOSPACE, left=12),
            StoppedByError(job="job0", why=IoStatus.NOSPACE, left=11),
            GoesOn(job="job0"),
            StoppedByError(job="job0", why=IoStatus.FAILED, left=10),
        ]

    def test_of_a_ready_mirror_on_an_error(self) -> None:
        stopped = look("standby", 4, 16, "nospace")
        assert said(begin(), [(0, stopped)]) != []

    def test_by_somebody_is_said_once(self) -> None:
        notices = said(begin(), [(n, look("paused")) for n in range(3)])
        assert notices == [PausedBySomebody(job="job0")]

    def test_of_a_mirror_on_its_way_to_a_pivot_is_no_news(self) -> None:
        """QEMU itself goes through `standby` there."""
        assert said(begin().told(READY, 0), [(0, look("standby"))]) == []

    def test_goes_on_when_it_runs_and_not_before(self) -> None:
        """A ready mirror that is resumed may be in standby for a while."""
        looks = [(0.0, look("paused")), (1.0, look("standby")), (2.0, look("running"))]
        expected = [PausedBySomebody(job="job0"), GoesOn(job="job0")]
        assert said(begin(), looks) == expected
        assert said(begin(), looks[:2]) == expected[:1]

    def test_counts_for_the_time_limit(self) -> None:
        paused = [(n, look("paused", 1, 9, "nospace")) for n in range(11)]
        assert after(begin(10), *paused).do is Do.CANCEL


def mirror(
    copying: int, writing: int, seconds: int, status: str = "running"
) -> list[tuple[float, JobView]]:
    """A look each second at a mirror, in MiB a second, with 100 MiB to copy at first."""
    return [
        (float(n), look(status, n * copying * MIB, (100 + n * writing) * MIB))
        for n in range(seconds)
    ]


class TestConvergence:
    """twilligon/backup-vm#23, LibVirtKvm-scripts#41: an active commit that never gets ready."""

    def test_a_guest_that_writes_faster_is_said_with_both_rates(self) -> None:
        (notice,) = said(begin(), mirror(copying=2, writing=3, seconds=12))
        assert notice == DoesNotConverge(job="job0", writing=3 * MIB, copying=2 * MIB)
        assert "the guest writes 3 MiB/s, and 2 MiB/s are copied" in str(notice)
        for way_out in ("set-speed", "less than 2 MiB/s", "pause the guest"):
            assert way_out in str(notice)

    def test_as_fast_as_it_is_copied_is_no_convergence(self) -> None:
        assert len(said(begin(), mirror(copying=2, writing=2, seconds=12))) == 1

    def test_a_mirror_that_stands_still_does_not_converge(self) -> None:
        (notice,) = said(begin(), mirror(copying=0, writing=1, seconds=12))
        assert notice == DoesNotConverge(job="job0", writing=MIB, copying=0)

    @pytest.mark.parametrize("writing", [0, 1])
    def test_a_guest_that_writes_less_is_nothing_to_say(self, writing: int) -> None:
        assert said(begin(), mirror(copying=2, writing=writing, seconds=45)) == []

    def test_is_not_judged_before_a_while(self) -> None:
        assert said(begin(), mirror(copying=2, writing=3, seconds=10)) == []

    def test_is_not_judged_by_one_burst(self) -> None:
        """A mirror with a limit copies 16 MiB, and then sleeps for as long as that takes."""
        looks = [(0.0, look("running", 0, 32 * MIB))]
        looks += [(1.0 + n, look("running", 16 * MIB, 48 * MIB)) for n in range(30)]
        assert said(begin(), looks) == []

    def test_is_said_again_after_a_while_only(self) -> None:
        assert len(said(begin(), mirror(copying=2, writing=3, seconds=70))) == 1
        assert len(said(begin(), mirror(copying=2, writing=3, seconds=75))) == 2

    def test_is_noticed_after_the_pivot_was_taken_too(self) -> None:
        """The mirror pivots when nothing is left, which never happens."""
        state = begin().told(READY, 0)
        assert len(said(state, mirror(copying=2, writing=3, seconds=12, status="ready"))) == 1

    def test_what_the_guest_writes_in_a_pause_is_no_pace(self) -> None:
        paused = look("paused", 20 * MIB, 110 * MIB)
        looks = [*mirror(copying=2, writing=1, seconds=10), (10.0, paused), (12.0, paused)]
        looks += [
            (13.0 + n, look("running", (20 + 2 * n) * MIB, (170 + n) * MIB)) for n in range(20)
        ]
        assert [type(notice) for notice in said(begin(), looks)] == [PausedBySomebody, GoesOn]


def test_a_watch_is_a_value() -> None:
    assert replace(begin()) == begin()
    assert begin(1) != begin(2)


def test_bounds_of_the_waiting() -> None:
    """What the documentation says of them."""
    assert Limits() == Limits(grace_s=30.0, tries=30, lost_event_s=2.0, window_s=10.0, again_s=60.0)
