"""Cinder migrates a volume to another back end: what is copied, and what the ledger says then."""

from __future__ import annotations

import pytest

from qmpsnap.ledger.values import File
from tests.openstack.conftest import MakeRig
from tests.openstack.rig.pairings import OURS, with_two_back_ends
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import ledger_of


@pytest.fixture(scope="module")
def two(rig_of: MakeRig) -> Rig:
    """Two back ends."""
    return rig_of(with_two_back_ends(OURS))


def created(rig: Rig) -> str:
    """A new volume at the first back end; the scheduler takes the other by and by."""
    while True:
        volume = rig.create_volume()
        ((host,),) = rig.rows("select host from volumes where id = ?", volume)
        if host.startswith("rig@nfs1"):
            return volume


def migrated(rig: Rig, volume: str) -> str:
    """Migrate a volume to the second back end; what became of it."""
    asked = {"host": "rig@nfs2#nfs2", "force_host_copy": True}
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-migrate_volume": asked})
    query = "select migration_status from volumes where id = ?"
    became: str = read_until(
        lambda: rig.rows(query, volume)[0][0], lambda it: it in ("success", "error")
    )
    left = "select count(*) from volumes where migration_status in (?, ?) and not deleted"
    # What one of the two back ends has to remove then.
    read_until(lambda: rig.rows(left, "deleting", f"target:{volume}")[0][0], lambda it: it == 0)
    return became


def files(rig: Rig, volume: str) -> tuple[File, ...]:
    """What the ledger knows of a volume."""
    with ledger_of(rig).reading() as ledger:
        return tuple(ledger.files(volume))


def test_the_ledger_knows_a_volume_that_was_migrated(two: Rig) -> None:
    volume = created(two)
    assert migrated(two, volume) == "success"
    (known,) = files(two, volume)
    assert (known.file, known.format) == (f"volume-{volume}", "raw")
    assert {one.name for one in two.share.iterdir() if volume in one.name} == set()
    two.volumes("DELETE", f"/volumes/{volume}")
    read_until(lambda: two.status("volumes", volume), lambda it: it is None)
    assert files(two, volume) == ()
