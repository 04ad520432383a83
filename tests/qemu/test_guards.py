"""By QMP; the tests stand in `tests/support/guards.py`."""

from __future__ import annotations

from tests.support import guards
from tests.support.jobs import copy_begins
from tests.support.operations import MakeRig
from tests.support.rig import DISK
from tests.support.situations import situation


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

    @situation(
        "A block job runs on the disk already",
        happens="refused: another snapshot, or another merge, before anything is touched",
        code=4,
        then="Wait for it (`qmpsnap job wait`) or cancel it (`qmpsnap job cancel`).",
    )
    def test_job_of_somebody_else(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            found, content = rig.files(), rig.guest.read_sha256(DISK)
            copy_begins(rig.guest, DISK)
            for command in (["create", DISK, "new"], ["delete", DISK, "s1"]):
                for options in ([], ["--plan"]):
                    said = rig.cli(*command, *options)
                    assert said.code == 4, said
                    assert "mirror 'theirs'" in said.err
            rig.guest.qmp("block-job-cancel", {"device": "theirs", "force": True})
            assert (rig.files(), rig.guest.read_sha256(DISK)) == (found, content)
