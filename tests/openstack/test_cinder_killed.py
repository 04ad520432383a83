"""cinder-volume and the API killed right after each thing that an operation writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, holds, open_operations

_OURS = "qmpsnap.openstack.cinder.NfsDriver"


@pytest.fixture(scope="module")
def rig(our_cinder: Rig) -> Iterator[Rig]:
    """Our volume side, in which a driver can be told to die."""
    settings = tuple(
        one.replace(_OURS, "tests.openstack.dying.NfsDriver") for one in pairings.CINDER
    )
    with our_cinder.configured(replace(pairings.OUR_CINDER, cinder=settings), "cinder"):
        yield our_cinder


def dies_at(rig: Rig, point: str, ask: str, *arguments: object) -> None:
    """Ask for something, wait until Cinder has died of it, and start it again."""
    wanted = rig.folder / "die-at"
    wanted.write_text(point)
    rig.volumes(ask, *arguments)  # type: ignore[arg-type]
    read_until(lambda: wanted.exists(), lambda it: not it)
    rig.restart("cinder")


@pytest.mark.parametrize("point", ["handed-over", "wake", "recorded", "info", "finished"])
def test_a_create_that_compute_has_finished_is_taken_up(rig: Rig, point: str) -> None:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    body = {"snapshot": {"volume_id": volume, "force": True}}
    dies_at(rig, point, "POST", "/snapshots", body, "3.50")
    ((snapshot,),) = rig.rows("select id from snapshots where volume_id = ?", volume)
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "available")
    guest.io("write -P 2 1M 1M")
    check(rig, volume, [snapshot, ""], guest, nova=False)
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, [snapshot], guest, nova=False)
    guest.io("flush")
    assert holds(rig, volume, 1, "0", "1M")
    assert holds(rig, volume, 2, "1M", "1M")
    guest.close()


@pytest.mark.parametrize(
    "point", ["handed-over", "wake", "recorded", "info", "finished", "removed"]
)
def test_a_delete_that_compute_has_finished_is_taken_up(rig: Rig, point: str) -> None:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    snapshot, _, _ = rig.snapshot(volume)
    guest.io("write -P 2 1M 1M")
    dies_at(rig, point, "DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    check(rig, volume, [snapshot], guest, nova=False)
    guest.io("flush")
    assert holds(rig, volume, 1, "0", "1M")
    assert holds(rig, volume, 2, "1M", "1M")
    guest.close()
    assert open_operations(rig) == ()
