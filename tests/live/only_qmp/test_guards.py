"""Guards that only QMP can bring about; the others stand in `tests/live/test_guards.py`."""

from __future__ import annotations

from tests.rig.guards import refused_then_done
from tests.rig.jobs import copy_begins
from tests.rig.rig import DISK
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


def test_migration_that_is_under_way(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        rig.guest.qmp("migrate-set-parameters", {"max-bandwidth": 1})
        rig.guest.qmp("migrate", {"uri": "exec:sleep 1000"})
        try:
            refused_then_done(rig, "migration", "migrated")
        finally:
            rig.guest.qmp("migrate_cancel")


@situation(
    "A block job is already running on the disk",
    happens="another snapshot or merge is refused before anything is touched",
    code=4,
    then="Wait for it (`qmpsnap job wait`) or cancel it (`qmpsnap job cancel`).",
)
def test_job_of_somebody_else(make_rig: MakeRig) -> None:
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
