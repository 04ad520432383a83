"""When the headers end the wait for compute."""

from __future__ import annotations

import pytest

from qmpsnap.ledger.snapshots import ENDED, MISSED, are_headers_enough


@pytest.mark.parametrize(
    ("why", "shown_for_s", "enough"),
    [
        ("", 0.0, False),  # ours has not seen yet that it is flushed
        (MISSED, 0.0, False),
        ("", 31.0, True),  # of a stock one whose answer is lost
        (f"{ENDED}compute reports that it is done", 0.0, True),  # a stock one
    ],
)
def test_they_do_once_compute_has_had_its_time(why: str, shown_for_s: float, enough: bool) -> None:
    assert are_headers_enough(why, shown_for_s) is enough
