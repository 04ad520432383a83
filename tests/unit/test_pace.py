"""Rates from what a job's progress looked like."""

from __future__ import annotations

import pytest

from qmpsnap.operations.job.pace import CHANGES, Pace, Rates
from qmpsnap.operations.job.states import JobStatus, JobView


def seen(*samples: tuple[float, int, int], window_s: float = 10) -> Pace:
    pace = Pace(window_s=window_s)
    for at, current, total in samples:
        pace = pace.seen(JobView(status=JobStatus.RUNNING, current=current, total=total), at)
    return pace


def test_nothing_is_known_of_one_look() -> None:
    assert seen().rates is None
    assert seen((0, 1, 9)).rates is None
    assert seen((0, 1, 9), (0, 2, 9)).rates is None  # no time between them


def test_rates() -> None:
    rates = seen((0, 0, 100), (5, 50, 110)).rates
    assert rates == Rates(copying=10, writing=2, left=60)
    assert rates is not None
    assert rates.left_s == 7.5


@pytest.mark.parametrize(
    ("copying", "writing", "converges", "left_s"),
    [
        (2, 0, True, 3),
        (2, 1, True, 6),
        (2, 2, False, None),
        (1, 2, False, None),
        (0, 0, True, None),
    ],
)
def test_convergence(copying: int, writing: int, converges: bool, left_s: float | None) -> None:
    rates = Rates(copying=copying, writing=writing, left=6)
    assert (rates.converges, rates.left_s) == (converges, left_s)


def test_a_job_that_has_not_counted_its_work_yet_is_not_seen() -> None:
    assert seen((0, 0, 0), (1, 0, 0)).samples == ()


def test_the_same_progress_is_no_news() -> None:
    assert len(seen((0, 1, 9), (1, 1, 9), (2, 1, 9)).samples) == 1


def test_a_progress_that_goes_back_is_another_job() -> None:
    assert len(seen((0, 5, 9), (1, 6, 9), (2, 1, 9)).samples) == 1


@pytest.mark.parametrize("since", [0.0, 1e6])
def test_the_guest_alone_is_news(since: float) -> None:
    still = seen(*((since + 4 * n, 5, 9 + n) for n in range(CHANGES + 1)))
    assert still.is_telling
    assert still.rates == Rates(copying=0, writing=0.25, left=7)


def test_old_looks_are_forgotten_but_a_few_are_kept() -> None:
    many = seen(*((n, n, 1000) for n in range(100)))
    assert many.samples[0].at == 89
    slow = seen(*((100.0 * n, n, 1000) for n in range(50)))
    assert len(slow.samples) == CHANGES + 1


def test_takes_several_changes_and_a_while_to_tell() -> None:
    assert not seen((0, 1, 9), (20, 2, 9), (40, 3, 9)).is_telling
    assert not seen((0, 1, 9), (1, 2, 9), (2, 3, 9), (3, 4, 9)).is_telling
    assert seen((0, 1, 9), (1, 2, 9), (2, 3, 9), (10, 4, 9)).is_telling
