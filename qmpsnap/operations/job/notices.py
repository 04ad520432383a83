"""What is worth saying while a job runs: values, with the words for people. Pure."""

from __future__ import annotations

import msgspec

from qmpsnap.operations.job.states import IoStatus
from qmpsnap.operations.space import Room, bytes_text


class StoppedByError(msgspec.Struct, frozen=True, kw_only=True):
    """The job could not read or write, and has paused itself."""

    job: str
    why: IoStatus
    left: int
    """Bytes that are still to be copied, at most."""
    room: Room | None = None
    """Where it writes; None where that cannot be told."""

    def __str__(self) -> str:
        what = "there is no space left" if self.why is IoStatus.NOSPACE else "an I/O error"
        where = f" ({self.room.shortage(self.left)})" if self.room is not None else ""
        mend = "make room" if self.why is IoStatus.NOSPACE else "mend the storage"
        return (
            f"job {self.job} has paused: {what}{where}; {mend}, then `qmpsnap job resume`, "
            "or give it up with `qmpsnap job cancel`"
        )


class PausedBySomebody(msgspec.Struct, frozen=True, kw_only=True):
    """Another client has paused the job."""

    job: str

    def __str__(self) -> str:
        return f"job {self.job} has been paused; it goes on after `qmpsnap job resume`"


class GoesOn(msgspec.Struct, frozen=True, kw_only=True):
    """A paused job runs again."""

    job: str

    def __str__(self) -> str:
        return f"job {self.job} goes on"


class DoesNotConverge(msgspec.Struct, frozen=True, kw_only=True):
    """The guest writes as fast as the job copies, or faster: an active commit has no end."""

    job: str
    writing: float
    """Bytes a second."""
    copying: float

    def __str__(self) -> str:
        writing, copying = bytes_text(self.writing), bytes_text(self.copying)
        return (
            f"job {self.job} does not converge: the guest writes {writing}/s, and {copying}/s are "
            "copied; raise the bandwidth (`qmpsnap job set-speed`), throttle the guest's disk to less "
            f"than {copying}/s, or pause the guest for a while"
        )


class TimeIsUp(msgspec.Struct, frozen=True, kw_only=True):
    """The time limit has passed."""

    job: str
    cancelled: bool

    def __str__(self) -> str:
        then = (
            "cancelling it" if self.cancelled else "it is changing the chain: waiting for its end"
        )
        return f"job {self.job} has not ended in time; {then}"


class Reconnected(msgspec.Struct, frozen=True, kw_only=True):
    """The connection broke and is there again."""

    job: str
    reason: str

    def __str__(self) -> str:
        return f"the connection broke ({self.reason}) and is there again; job {self.job} goes on"


Notice = StoppedByError | PausedBySomebody | GoesOn | DoesNotConverge | TimeIsUp | Reconnected
