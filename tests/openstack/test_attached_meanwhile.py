"""A volume is attached, or backed up, while one of its snapshots is created, deleted or copied."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.ledger.machine import State
from tests.openstack.conftest import MakeRig
from tests.openstack.rig.backups import backing_up_with, held
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.held_up import held_up
from tests.openstack.rig.pairings import OURS
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, formats, ledger_of, settled

MIB = 1 << 20
GIB = 1 << 30


@pytest.fixture(scope="module", name="rig")
def backing_up(rig_of: MakeRig) -> Iterator[Rig]:
    """Both sides ours, with a backup service that reads late where it is told to."""
    with backing_up_with(rig_of(OURS), "tests.openstack.rig.late.NfsDriver") as rig:
        yield rig


@pytest.fixture(name="late")
def a_folder_of_what_is_late(rig: Rig) -> Iterator[Path]:
    """See late.py."""
    late = rig.folder / "late"
    late.mkdir()
    yield late
    shutil.rmtree(late)


class Said:
    """What is new in cinder-volume's log."""

    def __init__(self, rig: Rig) -> None:
        self._log = rig.folder / "log/cinder.log"
        self._before = self._log.stat().st_size

    def __call__(self, words: str) -> bool:
        return words.encode() in self._log.read_bytes()[self._before :]


def write(rig: Rig, volume: str, pattern: int) -> None:
    """The first MiB of a volume's own file."""
    with (rig.share / f"volume-{volume}").open("r+b") as file:
        file.write(bytes([pattern]) * MIB)


def attached(rig: Rig, volume: str, pool: ThreadPoolExecutor) -> Future[Guest]:
    """Ask for an attachment, and wait until it is answered or waits for an operation."""
    said = Said(rig)
    future = pool.submit(Guest, rig, volume)
    read_until(lambda: future.done() or said(f"volume {volume} waits for"), bool)
    return future


def test_an_attachment_waits_for_a_deletion(rig: Rig, tmp_path: Path) -> None:
    volume = rig.create_volume()
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    with ThreadPoolExecutor(1) as pool, held_up(rig, "commit", tmp_path) as command:
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        command.reached()
        future = attached(rig, volume, pool)
        assert not future.done(), "it was told a file that is merged away"
        command.let_go()
        guest = future.result()
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "deleting")
    _lives_on(rig, volume, guest, [""])


def test_an_attachment_waits_for_a_creation(rig: Rig, tmp_path: Path) -> None:
    volume = rig.create_volume()
    with ThreadPoolExecutor(1) as pool, held_up(rig, "create", tmp_path) as command:
        snapshot = rig.begin_snapshot(volume)
        command.reached()
        future = attached(rig, volume, pool)
        assert not future.done(), "it was told a file that becomes a backing file"
        command.let_go()
        guest = future.result()
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == "available"
    _lives_on(rig, volume, guest, [snapshot, ""])


def test_a_deletion_waits_for_an_attachment(rig: Rig) -> None:
    """And is the guest's then: between attachment and start nobody holds a lock on the file."""
    volume = rig.create_volume()
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"

    def told(guest: Guest) -> None:
        said = Said(rig)
        rig.volumes("DELETE", f"/snapshots/{snapshot}")
        read_until(lambda: said("is waited for") or _rests(rig, snapshot), bool)
        assert not _rests(rig, snapshot), "it was deleted below a file that was told"
        guest.start()
        guest.io("write -P 5 0 1M")

    guest = Guest(rig, volume, told)
    assert (
        read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "deleting") is None
    )
    assert guest.reads(5, "0", "1M")
    guest.stop()
    _lives_on(rig, volume, guest, [*formats(rig, volume)])


def test_a_deletion_does_not_wait_for_ever(rig: Rig) -> None:
    """As while a server is shelved, whose volume stays reserved: nothing is touched."""
    volume = rig.create_volume()
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-reserve": {}})
    became, _ = rig.delete(snapshot)
    assert became == "error_deleting"
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-unreserve": {}})
    reset = {"os-reset_status": {"status": "available"}}
    rig.volumes("POST", f"/snapshots/{snapshot}/action", reset)
    check(rig, volume, [snapshot, ""])
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, [""])


def test_a_source_is_attached_while_it_is_copied(rig: Rig, tmp_path: Path) -> None:
    volume = rig.create_volume()
    write(rig, volume, 1)
    with held_up(rig, "convert", tmp_path) as command:
        asked = {"volume": {"size": 1, "source_volid": volume}}
        clone = rig.volumes("POST", "/volumes", asked)["volume"]["id"]
        command.reached()
        guest = Guest(rig, volume)
        guest.start()
        guest.io("write -P 2 0 1M")
        command.let_go()
        became = read_until(lambda: rig.status("volumes", clone), lambda it: it != "creating")
    assert became == "available"
    assert (rig.share / f"volume-{clone}").read_bytes()[:MIB] == b"\1" * MIB
    settled(rig, volume)
    read_until(lambda: _snapshots(rig, volume), lambda it: it == [])
    assert guest.reads(2, "0", "1M")
    assert len(guest.live_chain()) == len(formats(rig, volume)) == 1
    guest.close()


def test_a_source_is_extended_while_it_is_copied(rig: Rig, tmp_path: Path) -> None:
    """Its row says `extending` at once; that waits for the lock of the clone."""
    volume = rig.create_volume()
    with held_up(rig, "convert", tmp_path) as command:
        asked = {"volume": {"size": 1, "source_volid": volume}}
        clone = rig.volumes("POST", "/volumes", asked)["volume"]["id"]
        command.reached()
        rig.volumes("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
        command.let_go()
        became = read_until(lambda: rig.status("volumes", clone), lambda it: it != "creating")
    assert became == "available"
    became = read_until(lambda: rig.status("volumes", volume), lambda it: it != "extending")
    assert became == "available"
    assert _snapshots(rig, volume) == []
    check(rig, volume, [""])


def test_an_extension_waits_for_a_snapshot(rig: Rig, tmp_path: Path) -> None:
    """The file that it makes longer is the active one of then."""
    volume = rig.create_volume()
    with held_up(rig, "create", tmp_path) as command:
        snapshot = rig.begin_snapshot(volume)
        command.reached()
        rig.volumes("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
        with suppress(TimeoutError):  # it waits for as long as the snapshot is held up
            read_until(lambda: rig.status("volumes", volume), lambda it: it != "extending", 3)
        assert rig.status("volumes", volume) == "extending"
        command.let_go()
        became = read_until(lambda: rig.status("volumes", volume), lambda it: it != "extending")
    assert became == "available"
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it == "available")
    check(rig, volume, [snapshot, ""])
    assert read_header(str(rig.share / f"volume-{volume}.{snapshot}")).virtual_size == 2 * GIB
    assert (rig.share / f"volume-{volume}").stat().st_size == GIB


def test_a_guest_is_evacuated_in_the_middle_of_a_deletion(rig: Rig) -> None:
    """Its host is gone, and the deletion with it: the file it is told stays the active one."""
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    snapshots = [rig.snapshot(volume)[0] for _ in range(2)]
    rig.nova("POST", "delay", {"delete": 600.0})
    rig.volumes("DELETE", f"/snapshots/{snapshots[0]}")
    read_until(lambda: _state(rig, snapshots[0]), lambda it: it is State.DELETING_AT_COMPUTE)
    rig.stop("compute", signal.SIGKILL)
    guest.close()
    # As in Nova's evacuation; Cinder refuses to let go of an attachment that Nova still knows.
    rig.rows("update volume_attachment set connection_info = null where id = ?", guest.attachment)
    asked = {"volume_uuid": volume, "instance_uuid": guest.server}
    new = rig.volumes("POST", "/attachments", {"attachment": asked})["attachment"]["id"]
    rig.volumes("DELETE", f"/attachments/{guest.attachment}")
    connector = {"host": "other", "ip": "127.0.0.2", "initiator": "iqn", "mountpoint": "/dev/vda"}
    answer = rig.volumes("PUT", f"/attachments/{new}", {"attachment": {"connector": connector}})
    told = answer["attachment"]["connection_info"]
    assert (told["name"], told["format"]) == (f"volume-{volume}.{snapshots[1]}", "qcow2")
    rig.volumes("POST", f"/attachments/{new}/action", {"os-complete": {}})
    rig.start("compute")
    with ledger_of(rig).writing() as ledger:
        for one in ledger.open_operations(volume=volume):
            ledger.abandon(one.token, "its host is gone")


def test_a_deletion_dies_while_it_waits(rig: Rig) -> None:
    """Before it is in the ledger: only its row says that somebody has asked for it."""
    volume = rig.create_volume()
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-reserve": {}})
    said = Said(rig)
    rig.volumes("DELETE", f"/snapshots/{snapshot}")
    read_until(lambda: said("is waited for"), bool)
    rig.restart("cinder", signal.SIGKILL)
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-unreserve": {}})
    read_until(lambda: rig.status("snapshots", snapshot), lambda it: it is None)
    check(rig, volume, [""])


def test_a_backup_waits_for_a_snapshot(rig: Rig, tmp_path: Path) -> None:
    volume = rig.create_volume()
    write(rig, volume, 1)
    said = Said(rig)
    with held_up(rig, "create", tmp_path) as command:
        snapshot = rig.begin_snapshot(volume)
        command.reached()
        backup = _begun(rig, volume)
        read_until(
            lambda: (
                said(f"volume {volume} waits for") or rig.status("backups", backup) != "creating"
            ),
            bool,
        )
        assert rig.status("backups", backup) == "creating"
        command.let_go()
        became = read_until(lambda: rig.status("backups", backup), lambda it: it != "creating")
    assert became == "available"
    data = held(rig, backup)
    assert (len(data), data[:MIB]) == (GIB, b"\1" * MIB)
    check(rig, volume, [snapshot, ""])


def test_a_snapshot_is_not_taken_below_a_restore(rig: Rig, late: Path) -> None:
    """It was asked for before, and the file is told before it begins."""
    volume = rig.create_volume()
    write(rig, volume, 1)
    backup = _begun(rig, volume)
    read_until(lambda: rig.status("backups", backup), lambda it: it == "available")
    (late / "overlay").touch()
    snapshot = rig.begin_snapshot(volume)
    read_until((late / "chosen").exists, bool)
    rig.volumes("POST", f"/backups/{backup}/restore", {"restore": {"volume_id": volume}})
    read_until(lambda: rig.status("volumes", volume), lambda it: it != "available")
    (late / "overlay").unlink()
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == "error"
    became = read_until(lambda: rig.status("volumes", volume), lambda it: it != "restoring-backup")
    assert became == "available"
    assert rig.delete(snapshot)[0] is None
    check(rig, volume, [""])


def test_a_backup_is_not_of_an_overlay(rig: Rig, late: Path) -> None:
    """A snapshot was asked for before the backup, and is taken once that has chosen what to read."""
    volume = rig.create_volume()
    for one in ("backup", "snapshot"):
        (late / one).touch()
    snapshot = rig.begin_snapshot(volume)
    backup = _begun(rig, volume)
    read_until((late / "chosen").exists, bool)
    (late / "snapshot").unlink()
    became = read_until(lambda: rig.status("snapshots", snapshot), lambda it: it != "creating")
    assert became == "available"
    (late / "backup").unlink()
    became = read_until(lambda: rig.status("backups", backup), lambda it: it != "creating")
    reason = rig.volumes("GET", f"/backups/{backup}")["backup"]["fail_reason"]
    assert (became, rig.status("volumes", volume)) == ("error", "available")
    assert "a snapshot was taken since the backup began" in reason
    check(rig, volume, [snapshot, ""])


def _lives_on(rig: Rig, volume: str, guest: Guest, chain: list[str]) -> None:
    """A guest started now writes to the file that everybody takes for the active one."""
    guest.start()
    guest.io("write -P 6 0 1M")
    check(rig, volume, chain, guest)
    guest.stop()
    guest.start()
    assert guest.reads(6, "0", "1M")
    guest.close()


def _state(rig: Rig, snapshot: str) -> State | None:
    with ledger_of(rig).reading() as ledger:
        standing = ledger.snapshot(snapshot)
    return None if standing is None else standing.state


def _rests(rig: Rig, snapshot: str) -> bool:
    """Whether nobody is deleting it."""
    return rig.status("snapshots", snapshot) != "deleting"


def _snapshots(rig: Rig, volume: str) -> list[tuple[object, ...]]:
    return rig.rows("select id, status from snapshots where volume_id = ? and not deleted", volume)


def _begun(rig: Rig, volume: str) -> str:
    """A backup, asked for."""
    body = {"backup": {"volume_id": volume, "force": True}}
    backup: str = rig.volumes("POST", "/backups", body)["backup"]["id"]
    return backup
