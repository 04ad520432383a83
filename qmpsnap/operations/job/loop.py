"""
The job loop: look, do what `watch` decides, sleep until something happens.

Before the job changes the graph, the graph is compared with the one that the plan was made from; a
job that would change another one is cancelled. (Under libvirt before a pivot only: it finalizes
commits and pulls by itself.) A connection that breaks in the middle is made
again, as far as the host can; what was lost on the way shows in the next look.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.machine import DEFAULT_LIMITS, Do, Limits, Step, Watch, Why, step, watch
from qmpsnap.operations.job.notices import Notice, Reconnected, StoppedByError
from qmpsnap.operations.job.states import JobView
from qmpsnap.operations.outcome import StillRunning
from qmpsnap.operations.plan_merge import MergePlan
from qmpsnap.operations.unchanged import differences

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Events wake the loop; this is the safety net for one that was lost."""

Progress = Callable[[MergePlan, JobView], None]
Tell = Callable[[Notice], None]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended, by its own words; only the graph tells what it did."""

    error: str | None
    cancelled: Why | None = None
    """Why we cancelled it."""
    differences: tuple[str, ...] = ()
    """See `Watch.differences`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """Sees one job through to its end."""

    host: Guest
    plan: MergePlan
    job: str
    progress: Progress | None = None
    tell: Tell | None = None
    poll_s: float = POLL_S

    def to_the_end(self, timeout_s: float | None = None, limits: Limits = DEFAULT_LIMITS) -> Ended:
        """
        Run the loop.

        Raises:
            StillRunning: It does not end, long after its time was up.
        """
        state = watch(self.job, time.monotonic(), timeout_s, limits)
        while True:
            try:
                view = self.host.view(self.job)
                log.debug("job %s: %s %d/%d", self.job, view.status, view.current, view.total)
                if self.progress is not None:
                    self.progress(self.plan, view)
                now = time.monotonic()
                decided = step(view, state, now)
                if decided.do is Do.END:
                    self.lasting(lambda: self.host.dismiss(self.job))
                    cancelled = state.cancelled[0] if state.cancelled else None
                    return Ended(
                        error=view.error, cancelled=cancelled, differences=state.differences
                    )
                self._say(decided.say)
                state = self._act(decided)
                self.host.wait(self.job, self._nap(state))
            except QmpsnapError as error:
                self._go_on_after(error)

    def lasting(self, work: Callable[[], T]) -> T:
        """Do something that may be done twice, again when the connection breaks under it."""
        while True:
            try:
                return work()
            except QmpsnapError as error:
                self._go_on_after(error)

    def _go_on_after(self, error: QmpsnapError) -> None:
        if isinstance(error, StillRunning) or not self.host.reconnect(error):
            raise error
        self._say(Reconnected(job=self.job, reason=str(error)))

    def _say(self, notice: Notice | None) -> None:
        if notice is None:
            return
        if isinstance(notice, StoppedByError):
            notice = replace(notice, room=self.host.room(self.plan.written))
        log.info("%s", notice)
        if self.tell is not None:
            self.tell(notice)

    def _act(self, decided: Step) -> Watch:
        if decided.do in (Do.PIVOT, Do.FINALIZE):
            found = differences(self.plan.disk, self.host.read())
            if found:
                self.host.cancel(self.job)
                return decided.watch.stopped(found, time.monotonic())
        if decided.do is Do.PIVOT and self.host.pivot(self.job):
            return decided.watch.sent(Do.PIVOT, time.monotonic())
        if decided.do is Do.FINALIZE:
            self.host.finalize(self.plan, self.job)
            return decided.watch.sent(Do.FINALIZE, time.monotonic())
        if decided.do is Do.CANCEL:
            self.host.cancel(self.job)
        if decided.do is Do.GIVE_UP:
            grace = decided.watch.limits.grace_s
            raise StillRunning(self.plan.kind, self.plan.top.file, grace)
        return decided.watch

    def _nap(self, state: Watch) -> float:
        if state.deadline is None:
            return self.poll_s
        left = state.deadline - time.monotonic()
        return min(self.poll_s, left) if left > 0 else self.poll_s
