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


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as its host sees it now."""

    status: JobStatus
    current: int = 0
    """Progress; its unit is the job's own, mostly bytes."""
    total: int = 0
    error: str | None = None


def next_action(view: JobView) -> Action:
    """Decide what to do about a job in this state."""
    return _ACTIONS[view.status]


@dataclass(eq=False)
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
