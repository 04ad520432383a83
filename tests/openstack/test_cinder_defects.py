"""The defects of the unmodified pair (test_stock_defects.py), with our volume side."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.openstack.retried import retried_at_once
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import ApiError, Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked, check, formats, holds, settled


@pytest.fixture(params=["our_cinder", "ours"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Our volume side, with either compute side."""
    found: Rig = request.getfixturevalue(request.param)
    return found


def reset(rig: Rig, volume: str, snapshot: str) -> None:
    """
    Let a snapshot be deleted again, once the driver has noticed that it has failed.

    The row says so up to a second earlier. A delete in that second is refused, and fails.
    """
    settled(rig, volume)
    body = {"os-reset_status": {"status": "error"}}
    rig.volumes("POST", f"/snapshots/{snapshot}/action", body)


def gone(guest: Guest) -> None:
    """
    Off, and not known to libvirt: an online delete fails for it.

    Nova asks Cinder for the new file up to half a second after the snapshot is available
    (libvirt/driver.py, volume_snapshot_create); a start before that would be from the old file, and
    nothing that compute says of the overlay then is true.
    """
    wanted = guest.connection["name"]
    read_until(lambda: guest.nova_connection["name"], lambda it: it == wanted)
    guest.domain.destroy()
    guest.domain.undefine()


def test_what_an_earlier_try_has_left_ends_no_wait(rig: Rig) -> None:
    """D1: on the retry a stock Cinder unlinks the base before Nova has begun."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 7 0 1M")
    snapshot, _, _ = rig.snapshot(volume)
    gone(guest)
    assert rig.delete(snapshot)[0] == "error_deleting"
    guest.start()
    # As stock compute leaves it; ours sends `0%` with a failure.
    rig.rows("update snapshots set progress = '90%' where id = ?", snapshot)
    reset(rig, volume, snapshot)
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"delete": 600})
    try:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        read_until(lambda: rig.progress(snapshot), lambda it: it == ("deleting", "0%"))
        asked(rig, "DELETE")
        assert (rig.share / f"volume-{volume}").exists()
        rig.nova("POST", "release")
        read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    finally:
        rig.nova("POST", "delay", {"delete": 0})
    check(rig, volume, [snapshot], guest)
    assert guest.reads(7, "0", "1M")
    guest.close()


def test_a_retry_does_not_end_the_wait_of_the_first_try(rig: Rig) -> None:
    """D1b: a stock Cinder takes the row of the retry for the end of the first try."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 7 0 1M")
    snapshot, _, _ = rig.snapshot(volume)
    gone(guest)
    with retried_at_once(rig, snapshot):
        assert rig.delete(snapshot)[0] == "error_deleting"
    check(rig, volume, [snapshot, ""])
    guest.start()
    assert guest.reads(7, "0", "1M")
    guest.close()


def test_a_job_that_was_aborted_is_not_done_whatever_compute_says(rig: Rig) -> None:
    """D2: stock Nova takes it for done, and a stock Cinder unlinks the guest's data."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 7 0 256M")
    snapshot, _, _ = rig.snapshot(volume)
    stop = threading.Event()

    def abort() -> None:
        while not guest.domain.blockJobInfo("vda", 0):
            if stop.is_set():
                return
        guest.domain.blockJobAbort("vda", 0)

    other = threading.Thread(target=abort)
    other.start()
    became, _ = rig.delete(snapshot)
    stop.set()
    other.join()
    assert became == "error_deleting"
    check(rig, volume, [snapshot, ""], guest)
    reset(rig, volume, snapshot)
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, [snapshot], guest)
    guest.stop()
    guest.start()
    assert guest.reads(7, "0", "256M")
    guest.close()


def test_a_volume_without_a_format_row_is_taken_over(rig: Rig) -> None:
    """D4: KeyError in a stock Cinder, after Nova has switched the guest."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    rig.rows("delete from volume_admin_metadata where volume_id = ?", volume)
    rig.rows("delete from qmpsnap_files where volume = ?", volume)
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    assert formats(rig, volume) == {snapshot: "qcow2", "": "raw"}
    check(rig, volume, [snapshot, ""], guest)
    guest.close()


def test_a_volume_that_nobody_states_the_format_of_is_refused(rig: Rig) -> None:
    volume = rig.create_volume()
    rig.rows("delete from volume_admin_metadata where volume_id = ?", volume)
    rig.rows("delete from qmpsnap_files where volume = ?", volume)
    _, became, _ = rig.snapshot(volume)
    assert became == "error"
    assert [one.name for one in rig.share.glob(f"volume-{volume}*")] == [f"volume-{volume}"]


def test_no_status_out_of_turn_is_taken_while_it_waits(rig: Rig) -> None:
    """D6: it makes a stock Cinder spin for ever."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"create": 600})
    try:
        snapshot = rig.begin_snapshot(volume)
        asked(rig, "POST")
        read_until(
            lambda: rig.rows("select state from qmpsnap_snapshots where snapshot = ?", snapshot),
            lambda it: ("creating_at_compute",) in it,
        )
        for update in spoofed(volume, snapshot):
            with pytest.raises(ApiError) as refused:
                rig.volumes(
                    "POST", f"/snapshots/{snapshot}/action", {"os-update_snapshot_status": update}
                )
            assert refused.value.status == 400, update
        assert rig.progress(snapshot) == ("creating", "0%")
        rig.nova("POST", "release")
        read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    finally:
        rig.nova("POST", "delay", {"create": 0})
    assert rig.status("snapshots", snapshot) == "available"
    check(rig, volume, [snapshot, ""], guest)
    guest.close()


def spoofed(volume: str, snapshot: str) -> list[dict[str, Any]]:
    """Updates that compute would never send about this operation."""
    name = f"volume-{volume}.{snapshot}"
    done = {"status": "creating_compute_complete", "progress": "90%"}
    return [
        {"status": "available", "progress": "100%"},
        {"status": "deleting", "progress": "90%"},
        {"status": "deleting_compute_complete", "progress": "90%"},
        {"status": "error_deleting"},
        done | {"file_format": {f"../{name}": "qcow2"}},
        done | {"file_format": {"/etc/passwd": "raw"}},
        done | {"file_format": {f"volume-{snapshot}": "raw"}},
        done | {"file_format": {name: "vmdk"}},
        done | {"file_format": {name: "ploop"}},
        done | {"operation": "an-old-token"},
        done | {"file_format": {name: 3}},
        done | {"surprise": True},
    ]


def test_a_raw_volume_stays_raw_after_a_delete_that_failed(rig: Rig) -> None:
    """D7: a stock Cinder calls it qcow2 from then on."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 9 0 1M")
    snapshot, _, _ = rig.snapshot(volume)
    gone(guest)
    assert rig.delete(snapshot)[0] == "error_deleting"
    assert rig.metadata(volume) == {"format": "qcow2", "base_format": "raw"}
    guest.detach()
    reset(rig, volume, snapshot)
    assert rig.delete(snapshot)[0] is None
    assert rig.metadata(volume) == {"format": "raw", "base_format": "raw"}
    check(rig, volume, [""])
    assert holds(rig, volume, 9, "0", "1M")


def test_a_guest_that_is_gone_is_told_of_at_once(ours: Rig) -> None:
    """D5: stock Nova says nothing of it, and Cinder waits for ten minutes."""
    volume = ours.create_volume()
    guest = Guest(ours, volume)
    guest.start()
    gone(guest)
    snapshot, became, _ = ours.snapshot(volume)
    assert became == "error"
    overlay = ours.share / f"volume-{volume}.{snapshot}"
    read_until(overlay.exists, lambda it: not it)  # the row says so before the driver has heard
    check(ours, volume, [""], guest)
    assert ours.delete(snapshot)[0] is None
    guest.start()
    _, became, _ = ours.snapshot(volume)
    assert became == "available"
    guest.close()
