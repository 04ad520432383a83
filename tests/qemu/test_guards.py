"""By QMP; the tests stand in `tests/support/guards.py`."""

from __future__ import annotations

from tests.support import guards
from tests.support.operations import MakeRig


class TestGuards(guards.Guards):
    def test_migration_that_is_under_way(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(2)
            rig.guest.qmp("migrate-set-parameters", {"max-bandwidth": 1})
            rig.guest.qmp("migrate", {"uri": "exec:sleep 1000"})
            try:
                guards.refused_then_done(rig, "migration", "migrated")
            finally:
                rig.guest.qmp("migrate_cancel")
