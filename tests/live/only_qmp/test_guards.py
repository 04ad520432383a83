"""Guards that only QMP can bring about; the others stand in `tests/live/test_guards.py`."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import pytest

from tests.rig.disks import qcow2_chain
from tests.rig.guards import refused_then_done
from tests.rig.jobs import copy_begins
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.situations import situation
from tests.rig.waiting import until


@remedy("WouldHarm/migration")
@pytest.mark.parametrize("end", ["cancelled", "done"])
def test_migration_that_has_ended(make_rig: MakeRig, end: str) -> None:
    """Where it was cancelled the guest is here still; else it is with the target."""
    with make_rig("raw") as rig, TemporaryDirectory(prefix="qs-", dir="/tmp") as short:
        rig.grow(2)
        content = rig.guest.read_sha256(DISK)
        files = [(rig.folder / name, one) for name, one in ((f"{BASE}.s1", "qcow2"), (BASE, "raw"))]
        uri = f"unix:{short}/to"
        disk = qcow2_chain(files, DISK, SERIAL)
        with direct_rig(rig.folder, disk, ["-incoming", uri]) as target:
            rig.guest.qmp("migrate-set-parameters", {"max-bandwidth": 1000})
            rig.guest.qmp("migrate", {"uri": uri})
            said = rig.delete(f"{BASE}.s1", BASE)
            assert (said.code, "Wait until the migration has ended" in said.err) == (4, True), said
            if end == "cancelled":
                rig.guest.qmp("migrate_cancel")
                until(lambda: migration(rig) == "cancelled")
                guest = rig
            else:
                rig.guest.qmp("migrate-set-parameters", {"max-bandwidth": 2**30})
                until(lambda: migration(rig) == "completed")
                rig.guest.quit()  # type: ignore[attr-defined]
                target.guest.qmp("cont")
                target.guest.qmp("stop")
                guest = target
            assert guest.delete(f"{BASE}.s1", BASE).code == 0
            assert guest.files() == [BASE]
            assert guest.guest.read_sha256(DISK) == content


def migration(rig: Rig) -> str:
    """Its state."""
    found = rig.guest.qmp("query-migrate")
    assert isinstance(found, dict)
    return str(found["status"])


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


@remedy("JobAmbiguous")
def test_two_jobs_of_one_disk(make_rig: MakeRig) -> None:
    size = 16 * MIB  # each look drains the jobs, which then copy a piece more
    with make_rig("raw", size=size) as rig:
        for number in range(1, 6):
            if number in (2, 5):
                rig.guest.write(DISK, 0, size, number)
            rig.create(f"s{number}")
        content, layers = rig.guest.read_sha256(DISK), rig.disk().layers
        for job, top, base in (("lower", 3, 5), ("upper", 0, 2)):
            stream = {"device": layers[top].node, "base-node": layers[base].node, "speed": 1}
            rig.guest.qmp("block-stream", {"job-id": job, **stream})
        said = rig.cli("job cancel", DISK)
        assert (said.code, "has several jobs" in said.err) == (4, True), said
        for job in ("upper", "lower"):
            assert job in said.err
            assert rig.cli("job cancel", job).code == 0
        assert rig.guest.qmp("query-jobs") == []
        assert rig.guest.read_sha256(DISK) == content
