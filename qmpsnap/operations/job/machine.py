"""
What to do next about a running job: a small machine over values, without a clock. Pure.

    decide(view, watch, now) ─► what to do, what to say, and the watch as it is then

The time limit leaves one of two states. Before the job was told to change the chain it is
cancelled, and the chain stays as it was. Afterwards its end is awaited for `grace_s` more; a mirror
that still has not pivoted then is cancelled too, which QEMU allows until the moment of the switch.
In the end the graph tells which of the two it was.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import msgspec
from msgspec.structs import replace

from qmpsnap.operations.flushed import NOTHING, Evidence
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
    Do,
    Heard,
    IoStatus,
    JobStatus,
    JobView,
    next_for,
)


class Why(Enum):
    """Why a job was cancelled by us."""

    TIMEOUT = auto()
    NOT_READY = auto()
    """It was told again and again to change the chain, and did not."""
    NOT_FLUSHED = auto()
    CHANGED = auto()


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the waiting."""

    grace_s: float = 30.0
    """How long an end is awaited that must come: of a cancelled job, or of one that has begun to
    change the chain when its time is up."""
    tries: int = 30
    """How often a job is told to change the chain while it answers that it cannot now."""
    lost_event_s: float = 2.0
    """How long after a job has vanished the event of its end may still come."""
    window_s: float = 10.0
    """How far back a judgement about convergence looks."""
    again_s: float = 60.0
    """How long until the same judgement is said again."""


DEFAULT_LIMITS: Final = Limits()


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be remembered between two looks at a job."""

    job: str
    limits: Limits = DEFAULT_LIMITS
    deadline: float | None = None
    pace: Pace = msgspec.field(default_factory=Pace)
    heard: Heard = msgspec.field(default_factory=Heard)
    gone_since: float | None = None
    """When it was first seen to be gone, without a word of its end."""
    tries: int = 0
    """How often it was told to change the chain."""
    committed: tuple[JobStatus, float] | None = None
    """In which state it was told to, with success, and when."""
    cancelled: tuple[Why, float] | None = None
    differences: tuple[str, ...] = ()
    """In what the graph was not the planned one when the job was about to change it."""
    flush: Evidence = NOTHING
    """What came of the flush before the job was told to change the chain."""
    told_late: bool = False
    told_pause: tuple[IoStatus, int] | None = None
    """Of the pause that was said: why, and how far the job was."""
    told_pace: float | None = None

    def hears(self, heard: Heard) -> Watch:
        """Take what events said into account."""
        return replace(self, heard=self.heard.and_then(heard))

    def told(self, status: JobStatus, now: float) -> Watch:
        """Note that it was told to change the chain."""
        return replace(self, committed=(status, now))

    def changed(self, differences: tuple[str, ...], now: float) -> Watch:
        """Note that the job was cancelled, because somebody else had changed the graph."""
        return replace(self, cancelled=(Why.CHANGED, now), differences=differences)

    def not_flushed(self, now: float) -> Watch:
        """Note that the job was cancelled, because what it wrote could not be flushed."""
        return replace(self, cancelled=(Why.NOT_FLUSHED, now))


class Decision(msgspec.Struct, frozen=True):
    """What is to be done and said now, and the watch from now on."""

    do: Do
    say: Notice | None
    watch: Watch


def watch(job: str, now: float, timeout_s: float | None, limits: Limits = DEFAULT_LIMITS) -> Watch:
    """Begin to watch a job."""
    deadline = None if timeout_s is None else now + timeout_s
    return Watch(job=job, limits=limits, deadline=deadline, pace=Pace(window_s=limits.window_s))


def decide(view: JobView, watch: Watch, now: float) -> Decision:
    """Decide what to do about a job that looks like this now."""
    asks = next_for(view)
    if asks is Do.END:
        return _end(view, watch, now)
    watch = replace(watch, gone_since=None)
    if watch.cancelled is not None:
        over = now > watch.cancelled[1] + watch.limits.grace_s
        return Decision(Do.GIVE_UP if over else Do.WAIT, None, watch)
    if watch.deadline is not None and now >= watch.deadline and view.status not in ENDING:
        return _late(watch, watch.deadline, now)
    if watch.committed is None and asks is Do.COMMIT:
        return _commit(watch, now)
    return _wait(view, watch, now)


def _end(view: JobView, watch: Watch, now: float) -> Decision:
    """
    A job that is gone has ended, but why may still be on its way.

    When it was dismissed by another client, or by libvirt, only an event says how it ended; an
    event that was lost is not waited for longer than `lost_event_s`.
    """
    if view.status is JobStatus.NULL and view.error is None and not watch.heard.ended:
        since = now if watch.gone_since is None else watch.gone_since
        if now < since + watch.limits.lost_event_s:
            return Decision(Do.WAIT, None, replace(watch, gone_since=since))
    return Decision(Do.END, None, watch)


def _late(watch: Watch, deadline: float, now: float) -> Decision:
    """The time is up."""
    cancel = Decision(
        Do.CANCEL,
        TimeIsUp(job=watch.job, cancelled=True),
        replace(watch, cancelled=(Why.TIMEOUT, now)),
    )
    if watch.committed is None:
        return cancel
    told_in, since = watch.committed
    if now > max(deadline, since) + watch.limits.grace_s:
        # What was pending cannot be cancelled any more.
        return cancel if told_in is JobStatus.READY else Decision(Do.GIVE_UP, None, watch)
    if watch.told_late:
        return Decision(Do.WAIT, None, watch)
    say = TimeIsUp(job=watch.job, cancelled=False)
    return Decision(Do.WAIT, say, replace(watch, told_late=True))


def _commit(watch: Watch, now: float) -> Decision:
    if watch.tries >= watch.limits.tries:
        return Decision(Do.CANCEL, None, replace(watch, cancelled=(Why.NOT_READY, now)))
    return Decision(Do.COMMIT, None, replace(watch, tries=watch.tries + 1))


def _wait(view: JobView, watch: Watch, now: float) -> Decision:
    """Nothing to do; perhaps something to say."""
    if view.status is JobStatus.PAUSED or (view.status in PAUSED and view.io_status != IoStatus.OK):
        return _paused(view, watch)
    if watch.told_pause is not None and view.status not in PAUSED:
        watch = replace(watch, told_pause=None, pace=watch.pace.restarted())
        return Decision(Do.WAIT, GoesOn(job=watch.job), watch)
    watch = replace(watch, pace=watch.pace.seen(view, now))
    rates = watch.pace.rates
    if not watch.pace.is_telling or rates is None or rates.converges:
        return Decision(Do.WAIT, None, watch)
    if watch.told_pace is not None and now < watch.told_pace + watch.limits.again_s:
        return Decision(Do.WAIT, None, watch)
    say = DoesNotConverge(job=watch.job, writing=rates.writing, copying=rates.copying)
    return Decision(Do.WAIT, say, replace(watch, told_pace=now))


def _paused(view: JobView, watch: Watch) -> Decision:
    pause = (view.io_status, view.current)
    if watch.told_pause == pause:
        return Decision(Do.WAIT, None, watch)
    say: Notice = PausedBySomebody(job=watch.job)
    if view.io_status is not IoStatus.OK:
        say = StoppedByError(job=watch.job, why=view.io_status, left=view.left)
    return Decision(Do.WAIT, say, replace(watch, told_pause=pause))
