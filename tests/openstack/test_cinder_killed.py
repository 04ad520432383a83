"""cinder-volume and the API killed right after each thing that an operation writes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from qmpsnap.ledger.values import Place
from tests.openstack.failed import failed, place_of
from tests.openstack.interrupted import DYING, dies_at, written
from tests.openstack.rig import pairings
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import asked, check, holds, ledger_of, open_operations, settled


@pytest.fixture(scope="module")
def rig(our_cinder: Rig) -> Iterator[Rig]:
    """Our volume side, in which a driver can be told to die."""
    with our_cinder.configured(replace(pairings.OUR_CINDER, cinder=DYING), "cinder"):
        yield our_cinder


@pytest.mark.parametrize("point", ["handed-over", "wake", "recorded", "info", "finished"])
def test_a_create_that_compute_has_finished_is_taken_up(rig: Rig, point: str) -> None:
    volume, guest = written(rig)
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
    "point", ["handed-over", "wake", "recorded", "info", "finished", "unlinked", "removed"]
)
def test_a_delete_that_compute_has_finished_is_taken_up(rig: Rig, point: str) -> None:
    volume, guest = written(rig)
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


def two_deep(rig: Rig) -> tuple[str, str, str]:
    """A volume that nobody has attached, and its two snapshots, the older one first."""
    volume, guest = written(rig)
    older, _, _ = rig.snapshot(volume)
    guest.io("write -P 2 1M 1M")
    newer, _, _ = rig.snapshot(volume)
    guest.io("write -P 3 2M 1M")
    guest.detach()
    return volume, older, newer


def still_usable(rig: Rig, volume: str, chain: list[str]) -> None:
    """What was written is there, and the volume takes a snapshot and lets it go."""
    assert open_operations(rig) == ()
    check(rig, volume, chain)
    assert all(holds(rig, volume, n, f"{n - 1}M", "1M") for n in (1, 2, 3))
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    check(rig, volume, [snapshot, *chain])
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, chain)


@pytest.mark.parametrize("point", ["begin", "overlay", "made", "recorded", "info", "finished"])
def test_an_offline_create_is_done_or_was_never_begun(rig: Rig, point: str) -> None:
    volume, older, newer = two_deep(rig)
    body = {"snapshot": {"volume_id": volume}}
    dies_at(rig, point, "POST", "/snapshots", body, "3.50")
    query = "select id from snapshots where volume_id = ? order by created_at desc limit 1"
    ((snapshot,),) = rig.rows(query, volume)
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == ("error" if point in ("begin", "overlay", "made") else "available")
    if became == "available":
        check(rig, volume, [snapshot, newer, older, ""])
    assert rig.delete(snapshot)[0] is None
    still_usable(rig, volume, [newer, older, ""])


@pytest.mark.parametrize(
    ("point", "of"),
    [
        *(("committed", "older"), ("rebased", "older"), ("recorded", "older"), ("info", "older")),
        *(("unlinked", "older"), ("removed", "older")),
        *(("begin", "newer"), ("committed", "newer"), ("recorded", "newer"), ("info", "newer")),
    ],
)
def test_an_offline_delete_is_taken_up(rig: Rig, point: str, of: str) -> None:
    volume, older, newer = two_deep(rig)
    snapshot, left = (older, newer) if of == "older" else (newer, older)
    dies_at(rig, point, "DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    still_usable(rig, volume, [left, ""])


def test_the_quota_after_a_clone_that_was_interrupted(rig: Rig) -> None:
    """Its temporary snapshot was never counted, and is not taken off when it is deleted."""

    def counted() -> dict[str, int]:
        query = "select resource, in_use from quota_usages where resource in (?, ?)"
        return dict(rig.rows(query, "snapshots", "gigabytes"))

    volume, older, newer = two_deep(rig)
    before = counted()
    body = {"volume": {"size": 1, "source_volid": volume}}
    dies_at(rig, "committed", "POST", "/volumes", body)
    query = "select id from snapshots where volume_id = ? and not deleted"
    read_until(lambda: {one for (one,) in rig.rows(query, volume)}, lambda it: it == {older, newer})
    after = counted()
    assert after == {"snapshots": before["snapshots"], "gigabytes": before["gigabytes"] + 1}


def settle_by_hand(rig: Rig, volume: str) -> None:
    """As `qmpsnap ledger settle`: nobody is at work on it, somebody says."""
    with ledger_of(rig).writing() as ledger:
        for one in ledger.open_operations(volume=volume):
            ledger.abandon(one.token, "somebody says so")


def reset(rig: Rig, snapshot: str, status: str = "error") -> None:
    """`cinder snapshot-reset-state`, once the manager has set its own."""
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "error_deleting")
    rig.volumes("POST", f"/snapshots/{snapshot}/action", {"os-reset_status": {"status": status}})


def ask_in_vain(rig: Rig, snapshot: str) -> None:
    """Delete a snapshot, of which compute has been told, and begins two minutes later."""
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"delete": 120})
    try:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked(rig, "DELETE")
    finally:
        rig.nova("POST", "delay", {"delete": 0})


def test_a_late_answer_of_an_abandoned_call_does_not_end_the_next(rig: Rig) -> None:
    """Of a stock compute, whose answers name no call; the headers decide."""
    volume, guest = written(rig)
    snapshot, _, _ = rig.snapshot(volume)
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"delete": 120})
    try:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked(rig, "DELETE")
        rig.nova("POST", "delay", {"delete": 5})
        settle_by_hand(rig, volume)
        reset(rig, snapshot)
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked(rig, "DELETE")
        late = {"os-update_snapshot_status": {"status": "deleting", "progress": "90%"}}
        rig.volumes("POST", f"/snapshots/{snapshot}/action", late)
        assert rig.progress(snapshot) == ("deleting", "0%")
        assert (rig.share / f"volume-{volume}").exists()
        assert len(open_operations(rig)) == 1
        read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    finally:
        rig.nova("POST", "delay", {"delete": 0})
    check(rig, volume, [snapshot], guest, nova=False)
    guest.io("flush")
    assert holds(rig, volume, 1, "0", "1M")
    guest.close()


def test_what_nobody_waited_for_and_is_not_proven_ends_in_error(rig: Rig) -> None:
    """The API dies after it has stored that a merge is done, which no header shows."""
    volume, guest = written(rig)
    snapshot, _, _ = rig.snapshot(volume)
    guest.close()
    ask_in_vain(rig, snapshot)
    untrue = {"os-update_snapshot_status": {"status": "deleting", "progress": "90%"}}
    with suppress(OSError):
        dies_at(rig, "wake", "POST", f"/snapshots/{snapshot}/action", untrue)
    rig.restart("cinder")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "error_deleting")
    check(rig, volume, [snapshot, ""])
    guest.detach()
    reset(rig, snapshot)
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, [""])
    assert holds(rig, volume, 1, "0", "1M")


def test_a_deletion_that_is_of_another_kind_after_a_detach_is_done(rig: Rig) -> None:
    """Before compute was asked; a pull cannot be done offline."""
    volume, guest = written(rig)
    snapshot, _, _ = rig.snapshot(volume)
    guest.close()
    wanted = rig.folder / "die-at"
    wanted.write_text("begin")
    rig.volumes("DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: wanted.exists(), lambda it: not it)
    rig.rows(
        "update volumes set status = 'available', attach_status = 'detached' where id = ?", volume
    )
    rig.rows("update volume_attachment set deleted = true where volume_id = ?", volume)
    rig.restart("cinder")
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    check(rig, volume, [""])
    assert holds(rig, volume, 1, "0", "1M")


@contextmanager
def failing(rig: Rig, point: str) -> Iterator[None]:
    """Have what is asked for in the block fail there, once."""
    wanted = rig.folder / "fail-at"
    wanted.write_text(point)
    yield
    read_until(lambda: wanted.exists(), lambda it: not it)


@pytest.mark.parametrize("point", ["fail", "unlinked", "removed"])
def test_the_file_of_a_create_that_failed_is_removed(rig: Rig, point: str) -> None:
    """Killed after it was settled as failed, after its file was unlinked, and after that was noted."""
    volume, guest = written(rig)
    guest.detach()
    (rig.folder / "fail-at").write_text("overlay")
    dies_at(rig, point, "POST", "/snapshots", {"snapshot": {"volume_id": volume}}, "3.50")
    ((snapshot,),) = rig.rows("select id from snapshots where volume_id = ?", volume)
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "error")
    check(rig, volume, [""])
    with ledger_of(rig).reading() as ledger:
        files = ledger.files(volume, gone=True)
    (overlay,) = [one for one in files if one.file == f"volume-{volume}.{snapshot}"]
    assert overlay.place is Place.GONE
    assert rig.delete(snapshot)[0] is None


@contextmanager
def looking_away(rig: Rig) -> Iterator[None]:
    """Have what nobody waits for stay as it is."""
    away = rig.folder / "looks-away"
    away.touch()
    try:
        yield
    finally:
        away.unlink()


def test_what_was_recorded_and_not_concluded_can_be_deleted_at_once(rig: Rig) -> None:
    """Before the driver has looked after it: `.info` does not know what the ledger has recorded."""
    volume, older, newer = two_deep(rig)
    with looking_away(rig):
        with failing(rig, "info"):
            body = {"snapshot": {"volume_id": volume}}
            third = rig.volumes("POST", "/snapshots", body, "3.50")["snapshot"]["id"]
        read_until(lambda: rig.status("snapshots", third), lambda it: it == "error")
        assert len(open_operations(rig)) == 1
        assert rig.delete(third)[0] is None
        with failing(rig, "info"):
            rig.volumes("DELETE", f"/snapshots/{older}")
        reset(rig, older)
        assert rig.delete(older)[0] is None
    still_usable(rig, volume, [newer, ""])


def test_an_untrue_answer_that_nobody_waits_for_ends_in_error(rig: Rig) -> None:
    """It comes after the start of the service, and before that has taken the deletion up again."""
    volume, guest = written(rig)
    snapshot, _, _ = rig.snapshot(volume)
    guest.close()
    ask_in_vain(rig, snapshot)
    untrue = {"os-update_snapshot_status": {"status": "deleting", "progress": "90%"}}
    rig.stop("cinder", signal.SIGKILL)
    with looking_away(rig):
        rig.start("cinder")
        rig.volumes("POST", f"/snapshots/{snapshot}/action", untrue)
        assert rig.status("snapshots", snapshot) == "deleting"
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "error_deleting")
    check(rig, volume, [snapshot, ""])


def test_what_follows_from_a_recorded_operation_is_tried_again(rig: Rig) -> None:
    """The share is full for a moment, say; the row says error until then."""
    volume, older, newer = two_deep(rig)
    body = {"snapshot": {"volume_id": volume}}
    with failing(rig, "info"):
        third = rig.volumes("POST", "/snapshots", body, "3.50")["snapshot"]["id"]
    read_until(lambda: rig.status("snapshots", third), lambda it: it == "available")
    settled(rig, volume)
    with failing(rig, "info"):
        rig.volumes("DELETE", f"/snapshots/{older}")
    read_until(lambda: rig.status("snapshots", older), lambda it: it is None)
    settled(rig, volume)
    assert rig.delete(third)[0] is None
    still_usable(rig, volume, [newer, ""])


@pytest.mark.parametrize("point", ["state", "unlinked", "removed"])
def test_what_is_let_go_of_a_create_that_stock_calls_failed_is_removed(
    rig: Rig, point: str
) -> None:
    """Killed after that was noted, after its file was unlinked, and after that was noted as well."""
    with failed(rig) as (guest, snapshot):
        guest.detach()
        body = {"snapshot": {"volume_id": guest.volume}}
        dies_at(rig, point, "POST", "/snapshots", body, "3.50")
        assert place_of(rig, guest.volume, snapshot) is Place.GONE
        check(rig, guest.volume, [""])
        assert holds(rig, guest.volume, 1, "0", "1M")
        assert rig.snapshot(guest.volume)[1] == "available"
