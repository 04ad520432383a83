"""By QMP; the tests stand in `tests/support/meddling.py`."""

from __future__ import annotations

from tests.support import meddling


class TestMeddling(meddling.Meddling):
    pass
