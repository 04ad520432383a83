"""
Before an operation: clear away what calls left that died in mid-step.

Whoever only looks, and `--plan`, changes nothing; there the same steps are shown.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from qmpsnap.formats.layers import Disks
from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.job.states import JobReport, JobStatus
from qmpsnap.operations.step import NotNow, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A guest as an operation finds it."""

    disks: Disks
    jobs: tuple[JobReport, ...]
    """As they were before anything was cleared away: what an ended one came to is still told."""
    clear: tuple[Step, ...]
    """What was, or would be, cleared away."""


def found(guest: Guest) -> Found:
    """Look at a guest, changing nothing."""
    jobs = guest.jobs()
    unsafe = guest.compose.unsafe(jobs)
    disks = guest.read()
    return Found(disks=disks, jobs=jobs, clear=(*unsafe, *guest.compose.leftovers(disks, jobs)))


def cleared(guest: Guest) -> Found:
    """Look at a guest, and clear away what is certainly left from a call of this tool."""
    jobs = guest.jobs()
    unsafe = guest.compose.unsafe(jobs)
    _take(guest, unsafe)
    disks = guest.read()
    left = guest.compose.leftovers(disks, jobs)
    if left:
        _take(guest, left)
        disks = guest.read()
    return Found(disks=disks, jobs=jobs, clear=(*unsafe, *left))


def notes_of(jobs: tuple[JobReport, ...], but: str) -> tuple[str, ...]:
    """What ended jobs of earlier calls came to, except for one."""
    return tuple(
        f"job {job.id} of an earlier call had ended: {job.view.error or 'without an error'}"
        for job in jobs
        if job.ours and job.view.status is JobStatus.CONCLUDED and job.id != but
    )


def _take(guest: Guest, steps: tuple[Step, ...]) -> None:
    for step in steps:
        # In use after all, or gone by itself: then there is nothing to clear away.
        with suppress(NotNow, CommandFailed):
            guest.take(step)
