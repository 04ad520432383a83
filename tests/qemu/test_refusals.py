"""The direct road; the tests stand in `tests/support/refusals.py`."""

from __future__ import annotations

from tests.support import refusals


class TestRefusals(refusals.Refusals):
    pass


class TestHandedOverOverlays(refusals.HandedOverOverlays):
    pass
