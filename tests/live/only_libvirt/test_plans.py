"""Under libvirt; the tests stand in `tests/rig/plans.py`."""

from __future__ import annotations

from tests.rig import plans


class TestPlans(plans.Plans):
    pass
