"""
The job loop: look, do what the machine decides, sleep until something happens.

Before the job changes the graph, the graph is compared with the one that the plan was made from; a
job that would change another one is cancelled. (Under libvirt before a pivot only: it finalizes
commits and pulls by itself.) A connection that breaks is made again, as far as the guest can;
what was lost on the way shows in the next look. All that is to be remembered is in `Watch`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations.flushed import NOTHING, Evidence, taken
from qmpsnap.operations.guest import Jobs
from qmpsnap.operations.job.machine import (
    DEFAULT_LIMITS,
    Decision,
    Limits,
    Watch,
    Why,
    decide,
    watch,
)
from qmpsnap.operations.job.notices import Notice, Reconnected, StoppedByError
from qmpsnap.operations.job.states import Do, JobStatus, JobView
from qmpsnap.operations.outcome import LeftRunning, StillRunning
from qmpsnap.operations.patience import Patience
from qmpsnap.operations.space import Room
from qmpsnap.operations.step import NotNow, Step

log = logging.getLogger(__name__)

POLL_S: Final = 1.0
"""Events wake the loop; this is the safety net for one that was lost."""
SOON_S: Final = 0.1
"""Between two looks at a job that is gone while the event of its end is awaited."""

Tell = Callable[[Notice], None]

T = TypeVar("T")


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended, by its own words; only the graph tells what it did."""

    status: JobStatus
    error: str | None
    cancelled: Why | None = None
    """Why we cancelled it."""
    differences: tuple[str, ...] = ()
    """See `Watch.differences`."""
    flush: Evidence = NOTHING
    """Whether what it wrote was flushed before it changed the graph."""


class JobSteps(msgspec.Struct, frozen=True, kw_only=True):
    """What may be taken while the job runs."""

    cancel: Step
    flush: Step | None = None
    commit: Step | None = None


class Loop(msgspec.Struct, frozen=True, kw_only=True):
    """Sees one job through to its end."""

    guest: Jobs
    kind: str
    file: str
    """What is merged; for messages."""
    job: str
    steps: JobSteps
    changed: Callable[[], tuple[str, ...]]
    """In what the graph is not the planned one; asked right before the job may change it."""
    room: Callable[[], Room | None] = lambda: None
    """Where the job writes."""
    progress: Callable[[JobView], None] | None = None
    tell: Tell | None = None
    poll_s: float = POLL_S
    patience: Patience = msgspec.field(default_factory=Patience)
    is_ours: bool = True
    """Whether it may be cancelled: this call has started it, or an earlier one certainly has."""
    is_short: bool = False
    """Whether the job takes no time: the first Ctrl-C is put off from its start on."""

    def to_the_end(
        self,
        timeout_s: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        is_new: bool = False,
    ) -> Ended:
        """
        Run the loop.

        Args:
            timeout_s: Seconds until the job is cancelled; None: never.
            limits: Bounds of the waiting.
            is_new: Whether it was started just now: what happens to it is heard, so the first
                look waits for that.

        Raises:
            StillRunning: It does not end, long after its time was up.
            LeftRunning: It should be cancelled, and is not certainly ours.
            KeyboardInterrupt: While it copies; once it changes the chain, the first is put off.
        """
        state = watch(self.job, time.monotonic(), timeout_s, limits)
        looks, commits = not is_new, False
        while True:
            try:
                if looks:
                    view = self.guest.view(self.job)
                    log.debug("job %s: %s %d/%d", self.job, view.status, view.current, view.total)
                    if self.progress is not None:
                        self.progress(view)
                    decided = decide(view, state, time.monotonic())
                    if decided.do is Do.END:
                        return _ended(view, decided.watch)
                    if decided.do is Do.CANCEL:
                        self._check_ours(decided.watch, timeout_s)
                    self._say(decided.say)
                    commits = commits or decided.do is Do.COMMIT
                    # What was decided counts when it was done: a cancel that was lost is sent again.
                    state = self._act(decided, view)
                looks = True
                state = state.hears(self.guest.wait(self.job, self._nap(state)))
            except QmpsnapError as error:
                self._go_on_after(error)
            except KeyboardInterrupt:
                if not (commits or self.is_short):
                    raise
                self.patience.put_off()

    def lasting(self, work: Callable[[], T]) -> T:
        """
        Do something that may be done twice, again when the connection breaks under it.

        Raises:
            KeyboardInterrupt: A second one; the first is put off.
        """
        while True:
            try:
                return self.patience.through(work)
            except QmpsnapError as error:
                self._go_on_after(error)

    def _go_on_after(self, error: QmpsnapError) -> None:
        if isinstance(error, (StillRunning, LeftRunning)) or not self.guest.reconnect(error):
            raise error
        self._say(Reconnected(job=self.job, reason=str(error)))

    def _say(self, notice: Notice | None) -> None:
        if notice is None:
            return
        if isinstance(notice, StoppedByError):
            notice = replace(notice, room=self.room())
        log.info("%s", notice)
        if self.tell is not None:
            self.tell(notice)

    def _check_ours(self, state: Watch, timeout_s: float | None) -> None:
        if self.is_ours or state.cancelled is None:
            return
        if state.cancelled[0] is Why.TIMEOUT:
            reason = f"it did not end within {timeout_s or 0:g} s"
        else:
            reason = "QEMU said again and again that it cannot change the chain now"
        raise LeftRunning(self.kind, self.file, reason)

    def _act(self, decided: Decision, view: JobView) -> Watch:
        state = decided.watch
        if decided.do is Do.GIVE_UP:
            raise StillRunning(self.kind, self.file, state.limits.grace_s)
        if decided.do is Do.CANCEL:
            self._try(self.steps.cancel)
        if decided.do is Do.COMMIT and self.steps.commit is not None:
            return self._commit(self.steps.commit, state, view.status)
        return state

    def _commit(self, commit: Step, state: Watch, status: JobStatus) -> Watch:
        found = self.changed()
        if found and not self.is_ours:
            raise LeftRunning(self.kind, self.file, f"the chain has changed ({'; '.join(found)})")
        if found:
            self._try(self.steps.cancel)
            return state.changed(found, time.monotonic())
        state = replace(state, flush=self._flush())
        if state.flush.flushed is False and not self.is_ours:
            raise LeftRunning(self.kind, self.file, _flush_error(state) or "")
        if state.flush.flushed is False:
            self._try(self.steps.cancel)
            return state.not_flushed(time.monotonic())
        return state.told(status, time.monotonic()) if self._try(commit) else state

    def _flush(self) -> Evidence:
        """
        Flush before the graph changes, as long as a failure leaves the chain as it was.

        QEMU up to 10 takes the backing file out of a streamed image's header before the copied
        tables are on disk: killed then, the image has silently lost its data (seen on four
        versions).
        """
        return NOTHING if self.steps.flush is None else taken(self.guest, self.steps.flush)

    def _try(self, step: Step) -> bool:
        """
        Take a step that the job may not be in the state for any more; False when it was not.

        Another client may cancel the job at any time, between our look and our step too.
        """
        try:
            self.guest.take(step)
        except NotNow as error:
            log.info("%s: %s", self.job, error)
            return False
        return True

    def _nap(self, state: Watch) -> float:
        if state.gone_since is not None or state.heard.ended:
            return min(self.poll_s, SOON_S)
        if state.deadline is None:
            return self.poll_s
        left = state.deadline - time.monotonic()
        return min(self.poll_s, left) if left > 0 else self.poll_s


def _ended(view: JobView, state: Watch) -> Ended:
    return Ended(
        status=view.status,
        error=_flush_error(state) or view.error or state.heard.error,
        cancelled=state.cancelled[0] if state.cancelled else None,
        differences=state.differences,
        flush=state.flush,
    )


def _flush_error(state: Watch) -> str | None:
    if state.flush.flushed is not False:
        return None
    return f"what it had written could not be flushed: {state.flush.why}"
