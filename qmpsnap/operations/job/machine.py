"""
What to do next about a running job: a small machine over values, without a clock. Pure.

    step(view, watch, now) ─► what to do, what to say, and the watch as it is then

The time limit leaves one of two states. Before the job was told to change the chain (pivot,
finalize) it is cancelled, and the chain stays as it was. Afterwards its end is awaited for
`grace_s` more; a mirror that still has not pivoted then is cancelled too, which QEMU allows until
the moment of the switch. In the end the graph tells which of the two it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from qmpsnap.operations.job.notices import (
    DoesNotConverge,
    GoesOn,
    Notice,
    PausedBySomebody,
    StoppedByError,
    TimeIsUp,
)
from qmpsnap.operations.job.pace import Pace
from qmpsnap.operations.job.states import (
    ENDING,
    PAUSED,
    Action,
    IoStatus,
    JobStatus,
    JobView,
    next_action,
)


class Why(StrEnum):
    """Why a job was cancelled by us."""

    TIMEOUT = "timeout"
    PIVOT = "pivot"
    CHANGED = "changed"


class Do(StrEnum):
    """What the loop does next."""

    WAIT = "wait"
    PIVOT = "pivot"
    FINALIZE = "finalize"
    CANCEL = "cancel"
    END = "end"
    GIVE_UP = "give-up"
    """Stop waiting, without knowing how it ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of the waiting."""

    grace_s: float = 30.0
    """How long an end is awaited that must come: of a cancelled job, or of one that has begun to
    change the chain when its time is up."""
    pivot_tries: int = 30
    """How often a pivot is tried while QEMU says that the mirror is not ready."""
    window_s: float = 10.0
    """How far back a judgement about convergence looks."""
    again_s: float = 60.0
    """How long until the same judgement is said again."""


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is to be remembered between two looks at a job."""

    job: str
    limits: Limits = DEFAULT_LIMITS
    deadline: float | None = None
    pace: Pace = field(default_factory=Pace)
    pivots: int = 0
    """Tries to pivot."""
    committed: tuple[Do, float] | None = None
    """The command that lets the chain change, and when it was taken."""
    cancelled: tuple[Why, float] | None = None
    differences: tuple[str, ...] = ()
    """In what the graph was not the planned one when the job was about to change it."""
    told_late: bool = False
    told_pause: tuple[IoStatus, int] | None = None
    """Of the pause that was said: why, and how far the job was."""
    told_pace: float | None = None

    def sent(self, what: Do, now: float) -> Watch:
        """Note that a pivot or a finalize was taken."""
        return replace(self, committed=(what, now))

    def stopped(self, differences: tuple[str, ...], now: float) -> Watch:
        """Note that the job was cancelled, because somebody else had changed the graph."""
        return replace(self, cancelled=(Why.CHANGED, now), differences=differences)


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done and said now, and the watch from now on."""

    do: Do
    say: Notice | None
    watch: Watch


def watch(job: str, now: float, timeout_s: float | None, limits: Limits = DEFAULT_LIMITS) -> Watch:
    """Begin to watch a job."""
    deadline = None if timeout_s is None else now + timeout_s
    return Watch(job=job, limits=limits, deadline=deadline, pace=Pace(window_s=limits.window_s))


def step(view: JobView, watch: Watch, now: float) -> Step:
    """Decide what to do about a job that looks like this now."""
    action = next_action(view)
    if action is Action.END:
        return Step(Do.END, None, watch)
    if watch.cancelled is not None:
        over = now > watch.cancelled[1] + watch.limits.grace_s
        return Step(Do.GIVE_UP if over else Do.WAIT, None, watch)
    if watch.deadline is not None and now >= watch.deadline and view.status not in ENDING:
        return _late(watch, watch.deadline, now)
    if watch.committed is None:
        if action is Action.PIVOT:
            return _pivot(watch, now)
        if action is Action.FINALIZE:
            return Step(Do.FINALIZE, None, watch)
    return _wait(view, watch, now)


def _late(watch: Watch, deadline: float, now: float) -> Step:
    """The time is up."""
    if watch.committed is None:
        return Step(
            Do.CANCEL,
            TimeIsUp(job=watch.job, cancelled=True),
            replace(watch, cancelled=(Why.TIMEOUT, now)),
        )
    what, since = watch.committed
    if now > max(deadline, since) + watch.limits.grace_s:
        if what is Do.PIVOT:
            say = TimeIsUp(job=watch.job, cancelled=True)
            return Step(Do.CANCEL, say, replace(watch, cancelled=(Why.TIMEOUT, now)))
        return Step(Do.GIVE_UP, None, watch)
    if watch.told_late:
        return Step(Do.WAIT, None, watch)
    return Step(Do.WAIT, TimeIsUp(job=watch.job, cancelled=False), replace(watch, told_late=True))


def _pivot(watch: Watch, now: float) -> Step:
    if watch.pivots >= watch.limits.pivot_tries:
        return Step(Do.CANCEL, None, replace(watch, cancelled=(Why.PIVOT, now)))
    return Step(Do.PIVOT, None, replace(watch, pivots=watch.pivots + 1))


def _wait(view: JobView, watch: Watch, now: float) -> Step:
    """Nothing to do; perhaps something to say."""
    if view.status is JobStatus.PAUSED or (view.status in PAUSED and view.io_status != IoStatus.OK):
        return _paused(view, watch)
    if watch.told_pause is not None and view.status not in PAUSED:
        watch = replace(watch, told_pause=None, pace=watch.pace.restarted())
        return Step(Do.WAIT, GoesOn(job=watch.job), watch)
    watch = replace(watch, pace=watch.pace.seen(view, now))
    rates = watch.pace.rates
    if not watch.pace.is_telling or rates is None or rates.converges:
        return Step(Do.WAIT, None, watch)
    if watch.told_pace is not None and now < watch.told_pace + watch.limits.again_s:
        return Step(Do.WAIT, None, watch)
    say = DoesNotConverge(job=watch.job, writing=rates.writing, copying=rates.copying)
    return Step(Do.WAIT, say, replace(watch, told_pace=now))


def _paused(view: JobView, watch: Watch) -> Step:
    pause = (view.io_status, view.current)
    if watch.told_pause == pause:
        return Step(Do.WAIT, None, watch)
    say: Notice = PausedBySomebody(job=watch.job)
    if view.io_status is not IoStatus.OK:
        say = StoppedByError(job=watch.job, why=view.io_status, left=view.left)
    return Step(Do.WAIT, say, replace(watch, told_pause=pause))
