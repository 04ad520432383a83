"""By QMP; the tests stand in `tests/support/verify.py`."""

from __future__ import annotations

from tests.support import verify


class TestVerify(verify.Verify):
    pass
