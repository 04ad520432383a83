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

from enum import Enum, StrEnum, auto
from typing import Final

import msgspec

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


class Do(Enum):
    """What the loop does next."""

    WAIT = auto()
    COMMIT = auto()
    """Let the job change the graph: a mirror is in step with the guest, or all data is copied."""
    CANCEL = auto()
    END = auto()
    """Nothing more will happen: read the error, dismiss, look at the graph."""
    GIVE_UP = auto()
    """Stop waiting, without knowing how it ends."""


_NEXT: Final = {
    JobStatus.UNDEFINED: Do.WAIT,
    JobStatus.CREATED: Do.WAIT,
    JobStatus.RUNNING: Do.WAIT,
    JobStatus.PAUSED: Do.WAIT,
    JobStatus.READY: Do.COMMIT,
    JobStatus.STANDBY: Do.WAIT,
    JobStatus.WAITING: Do.WAIT,
    JobStatus.PENDING: Do.COMMIT,
    JobStatus.ABORTING: Do.WAIT,
    JobStatus.CONCLUDED: Do.END,
    JobStatus.NULL: Do.END,
}


class IoStatus(StrEnum):
    """BlockDeviceIoStatus, qapi/block-core.json: why a job stopped by itself, if it did."""

    OK = "ok"
    FAILED = "failed"
    NOSPACE = "nospace"


class JobView(msgspec.Struct, frozen=True, kw_only=True):
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


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What events said of the end of a job. They come late, twice or never."""

    ended: bool = False
    failed: bool = False
    reason: str | None = None

    def and_then(self, later: Heard) -> Heard:
        """What is known when more was heard; the first reason is the nearest to the cause."""
        return Heard(
            ended=self.ended or later.ended,
            failed=self.failed or later.failed,
            reason=self.reason or later.reason,
        )

    @property
    def error(self) -> str | None:
        """Why the job failed, if that was heard."""
        return (self.reason or "nobody says why") if self.failed else None


class JobReport(msgspec.Struct, frozen=True, kw_only=True):
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
    target: str | None = None
    """Under libvirt: the file that it mirrors into."""


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


def next_for(view: JobView) -> Do:
    """What a job in this state asks for."""
    return _NEXT[view.status]


_MERGES: Final = frozenset({"commit", "active-commit", "pull"})


def copied(kind: str) -> str:
    """What is to be said of data that a merge had copied when it ended without being done."""
    if kind == "pull":
        return "What was copied stays, and does no harm."
    return (
        "What was copied stays: the guest reads what it did, but the snapshot that was to be deleted "
        "is mixed with newer data, and cannot be gone back to."
    )


class JobFailed(Failed):
    """The block job ended without doing its work. The chain is as it was before."""

    msg = (
        "the {self.kind} of {self.file} failed: {self.reason}. The chain is as it was: {self.chain}"
    )
    remedy = "Mend the cause (space, storage), then give the same command again.{self.copied}"
    exit_code = 5
    changed = "no"

    kind: str
    file: str
    reason: str
    chain: str

    @property
    def copied(self) -> str:
        """What becomes of what was copied; nothing of a job that was to write a header."""
        return f" {copied(self.kind)}" if self.kind in _MERGES else ""
