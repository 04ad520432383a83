"""
QEMU's job states, and what to do about each. Pure.

The table is QEMU's own, `JobSTT` in job.c (read in 7.2 and 10.0); a state that QEMU would not go
to from the one seen before is not an error of ours, since polling may skip states.

    created ─► running ⇄ paused              ┌─► aborting ─► concluded ─► null
                  │ ▲                        │
                  ▼ │                        │
                ready ⇄ standby ─► waiting ─► pending ─► concluded ─► null
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from qmpsnap.errors import Failed


class JobStatus(StrEnum):
    """JobStatus, qapi/job.json."""

    UNDEFINED = "undefined"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    READY = "ready"
    STANDBY = "standby"
    WAITING = "waiting"
    PENDING = "pending"
    ABORTING = "aborting"
    CONCLUDED = "concluded"
    NULL = "null"


class Action(StrEnum):
    """What the loop does next."""

    WAIT = "wait"
    PIVOT = "pivot"
    """A mirror is in step with the guest: switch over."""
    FINALIZE = "finalize"
    """All data is copied and the graph is as before: flush, then let the graph change."""
    END = "end"
    """Nothing more will happen: read the error, dismiss, look at the graph."""


_ACTIONS: Final = {
    JobStatus.UNDEFINED: Action.WAIT,
    JobStatus.CREATED: Action.WAIT,
    JobStatus.RUNNING: Action.WAIT,
    JobStatus.PAUSED: Action.WAIT,
    JobStatus.READY: Action.PIVOT,
    JobStatus.STANDBY: Action.WAIT,
    JobStatus.WAITING: Action.WAIT,
    JobStatus.PENDING: Action.FINALIZE,
    JobStatus.ABORTING: Action.WAIT,
    JobStatus.CONCLUDED: Action.END,
    JobStatus.NULL: Action.END,
}


class IoStatus(StrEnum):
    """BlockDeviceIoStatus, qapi/block-core.json: why a job stopped by itself, if it did."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as its host sees it now."""

    status: JobStatus
    current: int = 0
    """Progress; its unit is the job's own, mostly bytes. For a mirror it never goes back: what
    the guest writes meanwhile is added to `total`."""
    total: int = 0
    error: str | None = None
    io_status: IoStatus = IoStatus.OK

    @property
    def left(self) -> int:
        """What is still to be done."""
        return max(0, self.total - self.current)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReport:
    """One block job of a guest, whoever started it."""

    id: str
    type: str
    """JobType, qapi/job.json: `commit`, `stream`, `mirror`, `backup`, …"""
    disk: str | None
    """None where that cannot be told."""
    view: JobView
    bandwidth: int | None
    """Bytes a second that it may copy, 0 for no limit; None when it is not known."""
    ours: bool | None
    """Whether this tool started it; None when it is not known."""


class Verb(StrEnum):
    """What can be done to a job, in the words of the commands."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SET_SPEED = "set-speed"


PAUSED: Final = frozenset({JobStatus.PAUSED, JobStatus.STANDBY})
COPYING: Final = frozenset({JobStatus.CREATED, JobStatus.RUNNING, JobStatus.READY, *PAUSED})
"""States in which a job takes another bandwidth."""
ENDING: Final = frozenset({JobStatus.ABORTING, JobStatus.CONCLUDED, JobStatus.NULL})


def status_of(word: str) -> JobStatus:
    """A word that a later QEMU may have is one to wait through."""
    return JobStatus(word) if word in list(JobStatus) else JobStatus.UNDEFINED


def next_action(view: JobView) -> Action:
    """Decide what to do about a job in this state."""
    return _ACTIONS[view.status]


class JobFailed(Failed):
    """The block job ended without doing its work. The chain is as it was before."""

    msg = (
        "the {self.kind} of {self.file} failed: {self.reason}. The chain is as it was: {self.chain}"
    )
    remedy = "Mend the cause (space, storage), then give the same command again."
    exit_code = 5
    changed = "no"

    kind: str
    file: str
    reason: str
    chain: str
