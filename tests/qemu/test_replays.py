"""Recordings of a real guest; the tests stand in `tests/support/replays.py`."""

from __future__ import annotations

from tests.support import replays


class TestReplays(replays.Replays):
    pass
