"""Under libvirt; the tests stand in `tests/support/plans.py`."""

from __future__ import annotations

from tests.support import plans


class TestPlans(plans.Plans):
    pass
