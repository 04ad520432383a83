"""cinder-volume and the API killed right after each thing that an operation writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import pytest

from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, holds, ledger_of, open_operations, settled

_OURS = "qmpsnap.openstack.cinder.NfsDriver"


@pytest.fixture(scope="module")
def rig(our_cinder: Rig) -> Iterator[Rig]:
    """Our volume side, in which a driver can be told to die."""
    settings = tuple(
        one.replace(_OURS, "tests.openstack.dying.NfsDriver") for one in pairings.CINDER
    )
    with our_cinder.configured(replace(pairings.OUR_CINDER, cinder=settings), "cinder"):
        yield our_cinder


def written(rig: Rig) -> tuple[str, Guest]:
    """A volume, and a guest that runs on it and has written its first mebibyte."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    guest.io("write -P 1 0 1M")
    return volume, guest


def dies_at(rig: Rig, point: str, ask: str, *arguments: object) -> None:
    """Ask for something, wait until Cinder has died of it, and start it again."""
    wanted = rig.folder / "die-at"
    wanted.write_text(point)
    rig.volumes(ask, *arguments)  # type: ignore[arg-type]
    read_until(lambda: wanted.exists(), lambda it: not it)
    rig.restart("cinder")


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


@pytest.mark.parametrize("point", ["begin", "made", "recorded", "info", "finished"])
def test_an_offline_create_is_done_or_was_never_begun(rig: Rig, point: str) -> None:
    volume, older, newer = two_deep(rig)
    body = {"snapshot": {"volume_id": volume}}
    dies_at(rig, point, "POST", "/snapshots", body, "3.50")
    query = "select id from snapshots where volume_id = ? order by created_at desc limit 1"
    ((snapshot,),) = rig.rows(query, volume)
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == ("error" if point in ("begin", "made") else "available")
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


def settle_by_hand(rig: Rig, volume: str) -> None:
    """As `qmpsnap ledger settle`: nobody is at work on it, somebody says."""
    with ledger_of(rig).writing() as ledger:
        for one in ledger.open_operations(volume=volume):
            ledger.abandon(one.token, "somebody says so")


def reset(rig: Rig, snapshot: str, status: str = "error") -> None:
    """`cinder snapshot-reset-state`, once the manager has set its own."""
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "error_deleting")
    rig.volumes("POST", f"/snapshots/{snapshot}/action", {"os-reset_status": {"status": status}})


def asked_to_delete(rig: Rig) -> None:
    """Wait until compute has been asked."""
    read_until(lambda: rig.nova("GET", "log"), lambda it: any(one[0] == "DELETE" for one in it))


def test_a_late_answer_of_an_abandoned_call_does_not_end_the_next(rig: Rig) -> None:
    """Of a stock compute, whose answers name no call; the headers decide."""
    volume, guest = written(rig)
    snapshot, _, _ = rig.snapshot(volume)
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"delete": 120})
    try:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked_to_delete(rig)
        rig.nova("POST", "delay", {"delete": 5})
        settle_by_hand(rig, volume)
        reset(rig, snapshot)
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked_to_delete(rig)
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
    rig.nova("GET", "log")  # what was said before
    rig.nova("POST", "delay", {"delete": 120})
    try:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        asked_to_delete(rig)
    finally:
        rig.nova("POST", "delay", {"delete": 0})
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
    rig.rows("update volume_attachment set deleted = 1 where volume_id = ?", volume)
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
