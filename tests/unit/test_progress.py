"""Progress in a pipe: nothing of a short job, a line now and then of a long one."""

from __future__ import annotations

import pytest

from qmpsnap.cli import progress
from qmpsnap.cli.progress import pace_text, shown
from qmpsnap.operations.job.notices import GoesOn
from qmpsnap.operations.job.pace import Pace
from qmpsnap.operations.job.states import JobStatus, JobView


def view(current: int, total: int = 1000, status: str = "running") -> JobView:
    return JobView(status=JobStatus(status), current=current, total=total)


def test_a_short_job_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with shown() as screen:
        screen.update("commit x", view(10))
    assert capsys.readouterr() == ("", "")


def test_lines_go_to_stderr(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    with shown() as screen:
        screen.update("commit x\n", view(100, 0))
        screen.update("commit x\n", view(250, 1000, "paused"))
        screen.tell(GoesOn(job="j"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "commit x\\n: 25 % (250 B of 1000 B) paused\njob j goes on\n"


@pytest.mark.parametrize(
    ("looks", "text"),
    [
        ([view(10)], "running"),
        ([view(0), view(100)], "50 B/s, 18 s left"),
        ([view(0), view(100, 1100)], "50 B/s, no end in sight"),
        ([view(0), view(100, status="ready")], "ready"),
    ],
)
def test_pace(looks: list[JobView], text: str) -> None:
    pace = Pace()
    for number, one in enumerate(looks):
        pace = pace.seen(one, 2.0 * number)
    assert pace_text(pace, looks[-1]) == text
