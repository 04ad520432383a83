"""What is told when it could not be seen how an operation ended."""

from __future__ import annotations

import pytest

from qmpsnap.monitor.base import ConnectionLost
from qmpsnap.operations.guest import NotFlushed
from qmpsnap.operations.job.states import JobFailed
from qmpsnap.operations.outcome import (
    ChainUnexpected,
    FormatUnknown,
    HeaderWrong,
    NamesAnother,
    OpenedAnother,
    OutcomeUnknown,
    StillRunning,
    XmlBehind,
    changing,
)

ADVICE = {
    "snapshot": "start it from volume where that is there, otherwise from the file that was active",
    "commit": "start it from the file that was active before",
    "pull": "-F FORMAT volume`), then start from it",
    "active-commit": "compare volume with the file that it was committed into",
    "rewrite of the header": "Remove no file before that.",
}


@pytest.mark.parametrize("kind", ADVICE)
def test_what_to_start_a_guest_from_that_has_ended(kind: str) -> None:
    with pytest.raises(OutcomeUnknown) as caught, changing(kind, "volume"):
        raise ConnectionLost("query-jobs", "gone")
    assert ADVICE[kind] in caught.value.way_out
    assert "None" not in caught.value.way_out
    assert "{" not in caught.value.way_out


@pytest.mark.parametrize(
    "error",
    [
        NamesAnother("commit", "/share/a", "why"),
        OpenedAnother("commit", "/share/a", "a <- b"),
        JobFailed("commit", "a", "b", "c"),
        StillRunning("commit", "a", 1.0),
        ChainUnexpected("commit", "a", "b"),
        XmlBehind("a", "b"),
        HeaderWrong("a", "b", "c"),
        FormatUnknown("a", "b"),
        NotFlushed("a", "b"),
        OutcomeUnknown("commit", "a", "b"),
        KeyboardInterrupt(),
    ],
)
def test_what_says_itself_how_the_guest_was_left(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, changing("pull", "volume"):
        raise error
    assert caught.value is error
