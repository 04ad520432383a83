"""When the headers end the wait for compute."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.ledger.judge import Accepted
from qmpsnap.ledger.machine import Event
from qmpsnap.ledger.snapshots import ENDED, MISSED


@pytest.mark.parametrize(
    ("why", "for_s", "named", "is_done"),
    [
        ("", 0.0, "base", False),  # ours has not seen yet that it is flushed
        (MISSED, 0.0, "base", False),
        ("", 31.0, "base", True),  # of a stock one whose answer is lost
        (f"{ENDED}compute reports that it is done", 0.0, "base", True),  # a stock one
        (f"{ENDED}compute reports that it is done", 31.0, "file", False),
    ],
)
def test_the_headers_are_believed_once_compute_has_had_its_time(
    why: str, for_s: float, named: str, is_done: bool
) -> None:
    concluding = pytest.importorskip("qmpsnap.openstack.cinder.concluding")
    operation: Any = SimpleNamespace(
        token="t", snapshot="s", volume="v", file="file", kind="commit", onto="base"
    )
    driver: Any = SimpleNamespace(
        _shown={"t": time.monotonic() - for_s} if for_s else {},
        _named_above=lambda *_: ("above", named),
        _books=SimpleNamespace(
            standing=lambda _: SimpleNamespace(why=why),
            run=lambda _: Accepted("t", Event.COMPLETE),
        ),
    )
    assert concluding.Concluding._is_shown_done(driver, None, operation) is is_done
    assert ("t" in driver._shown) is (not is_done)
