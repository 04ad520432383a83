"""A share of points is chosen so that nothing is left out for ever, and the same each time."""

from __future__ import annotations

import pytest

from tests.rig import sampling
from tests.rig.kills import Point, Trace, points_of
from tests.rig.sampling import sample

POINTS = tuple(range(40))


def is_decisive(point: int) -> bool:
    return point in (20, 21)


def test_all_at_night() -> None:
    assert sample(POINTS, "x", is_decisive, share=1) == POINTS


def test_share_and_what_is_never_left_out() -> None:
    chosen = sample(POINTS, "x", is_decisive, share=10)
    assert len(chosen) == 2 + 4
    assert {20, 21} <= set(chosen)
    assert list(chosen) == sorted(chosen)
    assert chosen == sample(POINTS, "x", is_decisive, share=10)


def test_one_other_at_least() -> None:
    assert len(sample((1, 2, 3), "x", lambda _point: False, share=100)) == 1


def test_other_days_try_other_points(monkeypatch: pytest.MonkeyPatch) -> None:
    found: set[int] = set()
    for day in range(200):
        monkeypatch.setattr(sampling, "SEED", str(day))
        found.update(sample(POINTS, "x", is_decisive, share=10))
    assert found == set(POINTS)


@pytest.mark.parametrize(
    ("acts", "decisive"),
    [
        (["make", "open", "switch", "close"], "switch"),
        (["start", "flush", "commit", "dismiss"], "commit"),
        (["hold", "start", "redefine", "release"], "redefine"),
        (["start", "flush"], "start"),
    ],
)
def test_points_of_an_operation(acts: list[str], decisive: str) -> None:
    trace = Trace()
    trace.before("write", "begin")
    trace.after("write", "begin")
    for act in acts:
        trace.before("act", act)
        trace.after("act", act)
        trace.looks()
    points = points_of(trace)
    assert points[:2] == (
        Point("write", 1, "begin", "before"),
        Point("write", 1, "begin", "after"),
    )
    assert len([one for one in points if one.kind == "act"]) == 2 * len(acts)
    sure = [(one.kind, one.what, one.when) for one in points if one.is_decisive]
    looks = [("look", "the job runs", "before")] if "start" in acts else []
    assert sorted(sure) == sorted([("act", decisive, "before"), ("act", decisive, "after"), *looks])
