"""
Jobs without a plan: find one by what people call it, wait for it, cancel, pause, resume.

None of this finishes a job that stops before it changes the chain: what it merges, and so what is
to be flushed and proven, only the request knows that it was started with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from qmpsnap.errors import Ambiguous, Failed, NotFound, Refused, Unknown
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Jobs
from qmpsnap.operations.job.machine import decide, watch
from qmpsnap.operations.job.states import (
    COPYING,
    ENDING,
    PAUSED,
    Do,
    JobReport,
    JobStatus,
    Verb,
)
from qmpsnap.operations.options import check_bandwidth
from qmpsnap.operations.step import NotNow, Step

POLL_S: Final = 1.0
LINGER_S: Final = 3.0
"""How long a job may be ready or pending while somebody is at work on it."""
END_S: Final = 30.0
"""How long a cancelled job may take to end."""


class JobNotFound(NotFound):
    """No job answers to the name."""

    msg = "there is no job {self.wanted!r}; there is: {self.known_text}"
    remedy = "See `qmpsnap job list`. A job that has ended is not there any more."


class JobAmbiguous(Ambiguous):
    """A disk has more than one job."""

    msg = "{self.wanted!r} has several jobs: {self.known_text}"
    remedy = "Give the id of one of them."


class JobUnsuitable(Refused):
    """The job is not in a state in which this can be done."""

    msg = "job {self.job} is {self.status}: it cannot {self.verb}"
    remedy = "See `qmpsnap job list`."

    job: str
    status: str
    verb: str


class JobEndedBadly(Failed):
    """The job that was waited for has ended with an error."""

    msg = "job {self.job} has ended: {self.reason}"
    remedy = "Whoever started it says more; `qmpsnap chain` shows the chain."
    changed = "unknown"

    job: str
    reason: str


class JobWaits(Failed):
    """The job has copied everything, and waits for whoever started it to change the chain."""

    msg = "job {self.job} has copied everything, and waits ({self.status}) to be finished"
    remedy = (
        "Give the command again that started it: it takes the job up and finishes it. Nothing "
        "else knows what it merges."
    )
    changed = "no"

    job: str
    status: str


class JobGoesOn(Failed):
    """The job has not ended within the time limit of the wait."""

    msg = "job {self.job} is {self.status} after {self.seconds:g} s, and goes on"
    changed = "no"

    job: str
    status: str
    seconds: float


def find_job(jobs: tuple[JobReport, ...], wanted: str) -> JobReport:
    """
    Find a job by its id, or by the disk that has no other one.

    Raises:
        JobNotFound, JobAmbiguous: With the ids that there are.
    """
    for job in jobs:
        if job.id == wanted:
            return job
    found = [job for job in jobs if job.disk == wanted]
    if len(found) > 1:
        raise JobAmbiguous(wanted, tuple(job.id for job in found))
    if not found:
        raise JobNotFound(wanted, tuple(job.id for job in jobs))
    return found[0]


class CancelUnseen(Unknown):
    """Ctrl-C when a job had been told to end, and was not seen to."""

    msg = "interrupted; job {self.job} was told to end, and has not been seen to"
    remedy = "See `qmpsnap job list`; a cancelled job leaves the chain as it was."

    job: str


def planned(
    guest: Jobs, verb: Verb, wanted: str, bandwidth: int = 0
) -> tuple[JobReport, tuple[Step, ...]]:
    """
    Find the job, and the steps that would be taken; nothing is done.

    Raises:
        Refused: It would be refused, for the same reason.
    """
    if verb is Verb.SET_SPEED:
        check_bandwidth(bandwidth)
    job = _found(guest, verb, wanted)
    steps = [guest.compose.verb(verb, job.id, bandwidth)]
    dismiss = guest.compose.dismiss(job) if verb is Verb.CANCEL else None
    return job, tuple(steps if dismiss is None else (*steps, dismiss))


_CANNOT: Final = {
    Verb.CANCEL: "be cancelled",
    Verb.PAUSE: "be paused",
    Verb.RESUME: "be resumed",
    Verb.SET_SPEED: "be given another bandwidth",
}


def _found(guest: Jobs, verb: Verb, wanted: str) -> JobReport:
    """
    Find a job to which this can be done.

    Raises:
        JobNotFound, JobAmbiguous, JobUnsuitable: There is none.
    """
    job = find_job(guest.jobs(), wanted)
    status = job.view.status
    suits = {
        Verb.CANCEL: status not in ENDING,
        Verb.PAUSE: status in (JobStatus.CREATED, JobStatus.RUNNING, JobStatus.READY),
        Verb.RESUME: status in PAUSED or job.ours is None,
        Verb.SET_SPEED: status in COPYING,
    }
    if not suits[verb]:
        raise JobUnsuitable(job.id, status, _CANNOT[verb])
    return job


def wait_for(
    guest: Jobs,
    wanted: str,
    *,
    timeout_s: float | None = None,
    progress: Callable[[JobReport], None] | None = None,
    linger_s: float = LINGER_S,
) -> JobReport:
    """
    Wait until a job has ended; returns it as it was seen first.

    Raises:
        JobNotFound, JobAmbiguous: There is no such job.
        JobEndedBadly: It ended with an error, or was cancelled.
        JobWaits: It waits to be finished, and nobody does.
        JobGoesOn: The time is up.
    """
    job = find_job(guest.jobs(), wanted)
    guest.follow(job.id)
    began = time.monotonic()
    ready_since: float | None = None
    seen = watch(job.id, began, None)
    while True:
        view, now = guest.view(job.id), time.monotonic()
        if progress is not None:
            progress(replace(job, view=view))
        decided = decide(view, seen, now)
        seen = decided.watch
        if decided.do is Do.END:
            error = view.error or seen.heard.error
            if error is not None:
                raise JobEndedBadly(job.id, error)
            return job
        if view.status in (JobStatus.READY, JobStatus.PENDING):
            ready_since = now if ready_since is None else ready_since
            if now - ready_since >= linger_s:
                raise JobWaits(job.id, view.status)
        else:
            ready_since = None
        if timeout_s is not None and now - began >= timeout_s:
            raise JobGoesOn(job.id, view.status, timeout_s)
        left = POLL_S if timeout_s is None else min(POLL_S, timeout_s - (now - began))
        nap = min(left, linger_s) if ready_since is not None or seen.gone_since else left
        seen = seen.hears(guest.wait(job.id, max(0.0, nap)))


def cancel(guest: Jobs, wanted: str, *, end_s: float = END_S) -> JobReport:
    """
    Cancel a job, and wait for its end. The chain stays as it was, and none of our own stays.

    Raises:
        JobNotFound, JobAmbiguous: There is no such job.
        JobUnsuitable: It is ending already.
        JobGoesOn: It does not end.
        CancelUnseen: Ctrl-C, when it had been told to.
    """
    job = _found(guest, Verb.CANCEL, wanted)
    guest.follow(job.id)
    try:
        guest.take(guest.compose.verb(Verb.CANCEL, job.id))
        _see_its_end(guest, job, end_s)
    except NotNow as error:
        raise JobUnsuitable(job.id, "ending", "be cancelled") from error
    except KeyboardInterrupt:
        raise CancelUnseen(job.id) from None
    return job


def _see_its_end(guest: Jobs, job: JobReport, end_s: float) -> None:
    began = time.monotonic()
    while (view := guest.view(job.id)).status not in (JobStatus.CONCLUDED, JobStatus.NULL):
        if time.monotonic() - began > end_s:
            raise JobGoesOn(job.id, view.status, end_s)
        guest.wait(job.id, POLL_S)
    dismiss = guest.compose.dismiss(job)
    if dismiss is not None:
        with suppress(NotNow, CommandFailed):  # it has gone by itself
            guest.take(dismiss)


def pause(guest: Jobs, wanted: str) -> JobReport:
    """
    Let a job rest.

    Raises:
        JobNotFound, JobAmbiguous: There is no such job.
        JobUnsuitable: It rests already, or is ending.
    """
    job = _found(guest, Verb.PAUSE, wanted)
    guest.take(guest.compose.verb(Verb.PAUSE, job.id))
    return job


def resume(guest: Jobs, wanted: str) -> JobReport:
    """
    Let a paused job go on, whoever paused it.

    Raises:
        JobNotFound, JobAmbiguous: There is no such job.
        JobUnsuitable: It is not paused.
    """
    job = _found(guest, Verb.RESUME, wanted)
    guest.take(guest.compose.verb(Verb.RESUME, job.id))
    return job


def set_speed(guest: Jobs, wanted: str, bandwidth: int) -> JobReport:
    """
    Limit a job to so many bytes a second; 0 for no limit.

    Raises:
        BadOption: No job could take this.
        JobNotFound, JobAmbiguous: There is no such job.
        JobUnsuitable: It has nothing to copy any more.
    """
    check_bandwidth(bandwidth)
    job = _found(guest, Verb.SET_SPEED, wanted)
    guest.take(guest.compose.verb(Verb.SET_SPEED, job.id, bandwidth))
    return job
