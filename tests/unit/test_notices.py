"""The words for what is told while a job runs."""

from __future__ import annotations

import pytest

from qmpsnap.operations.job.notices import (
    DoesNotConverge,
    GoesOn,
    Notice,
    PausedBySomebody,
    Reconnected,
    StoppedByError,
    TimeIsUp,
)
from qmpsnap.operations.job.states import IoStatus
from qmpsnap.operations.space import Room

ROOM = Room(file="/share/a", mount="/share", free=0, allocated=1)


@pytest.mark.parametrize(
    ("notice", "words"),
    [
        (
            StoppedByError(job="j", why=IoStatus.NOSPACE, left=5, room=ROOM),
            ("j has paused: there is no space left (", "/share", "make room, then"),
        ),
        (
            StoppedByError(job="j", why=IoStatus.FAILED, left=5),
            ("j has paused: an I/O error; mend the storage, then",),
        ),
        (PausedBySomebody(job="j"), ("j has been paused",)),
        (GoesOn(job="j"), ("j goes on",)),
        (
            DoesNotConverge(job="j", writing=2048.0, copying=1024.0),
            ("j does not converge: the guest writes 2 KiB/s, and 1 KiB/s are copied",),
        ),
        (TimeIsUp(job="j", cancelled=True), ("not ended in time; cancelling it",)),
        (TimeIsUp(job="j", cancelled=False), ("not ended in time; it is changing the chain",)),
        (Reconnected(job="j", reason="EOF"), ("broke (EOF) and is there again; job j",)),
    ],
)
def test_words(notice: Notice, words: tuple[str, ...]) -> None:
    for word in words:
        assert word in str(notice)
