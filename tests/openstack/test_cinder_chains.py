"""Create, delete in every order, stop and start, clone, extend: what is kept of it, after each."""

from __future__ import annotations

import pytest

from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, formats, holds


@pytest.fixture(params=["our_cinder", "ours"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Our volume side, with either compute side."""
    found: Rig = request.getfixturevalue(request.param)
    return found


def taken(rig: Rig, volume: str) -> str:
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    return snapshot


def test_a_volume_through_everything_that_is_done_to_it(rig: Rig) -> None:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    check(rig, volume, [""], guest)
    snaps = []
    for pattern in (2, 3, 4):
        snaps.append(taken(rig, volume))
        guest.io(f"write -P {pattern} {pattern}M 1M")
        check(rig, volume, [*reversed(snaps), ""], guest)
    first, second, third = snaps
    assert rig.delete(second)[0] is None  # a commit in the middle
    check(rig, volume, [third, first, ""], guest)
    guest.stop()
    guest.start()
    assert guest.reads(3, "3M", "1M")
    assert rig.delete(third)[0] is None  # a pull of the file below
    check(rig, volume, [third, ""], guest)
    assert rig.delete(first)[0] is None  # a pull of the volume's first file
    check(rig, volume, [third], guest)
    guest.stop()
    guest.start()
    for pattern in (2, 3, 4):
        assert guest.reads(pattern, f"{pattern}M", "1M")
    assert guest.reads(1, "0", "1M")
    fourth = taken(rig, volume)
    check(rig, volume, [fourth, third], guest)
    guest.close()


def test_detached_it_is_cloned_extended_and_merged(rig: Rig) -> None:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 5 0 1M")
    first = taken(rig, volume)
    guest.io("write -P 6 1M 1M")
    guest.detach()
    second = taken(rig, volume)
    check(rig, volume, [second, first, ""])
    clone = rig.create_volume(1, source_volid=volume)
    assert formats(rig, clone) == {"": "raw"}
    assert rig.metadata(clone)["format"] == "raw"
    check(rig, volume, [second, first, ""])
    other = rig.create_volume(1, snapshot_id=second)
    assert formats(rig, other) == {"": "raw"}
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    read_until(lambda: rig.status("volumes", volume), lambda it: it == "available")
    check(rig, volume, [second, first, ""])
    assert rig.delete(first)[0] is None
    check(rig, volume, [second, ""])
    assert rig.delete(second)[0] is None
    check(rig, volume, [""])
    assert (rig.share / f"volume-{volume}").stat().st_size == 2 << 30
    for one in (volume, clone, other):
        assert holds(rig, one, 5, "0", "1M")
        assert holds(rig, one, 6, "1M", "1M")
