"""A clone, a backup's copy or a revert that fails or is killed: nothing of it stays, or gets stuck."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack.conftest import MakeRig
from tests.openstack.rig.backups import backed_up, backing_up_with, restored
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.held_up import failing, held_up
from tests.openstack.rig.pairings import OURS
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, open_operations, settled
from tests.rig import images

MIB = 1 << 20


@pytest.fixture(scope="module", name="rig")
def dying(rig_of: MakeRig) -> Iterator[Rig]:
    """Both sides ours, with a backup service; cinder-volume dies where it is told to."""
    with backing_up_with(rig_of(OURS), "tests.openstack.dying.NfsDriver") as rig:
        yield rig


@pytest.fixture(name="volume")
def a_volume(rig: Rig) -> str:
    """A volume that begins with a MiB of ones."""
    volume = rig.create_volume()
    with (rig.share / f"volume-{volume}").open("r+b") as file:
        file.write(b"\1" * MIB)
    return volume


def test_a_clone_that_fails_is_killed_while_it_cleans_up(rig: Rig, volume: str) -> None:
    with failing(rig, "convert"):
        _die_at(rig, "committed")
        clone = _cloning(rig, volume)
        _killed(rig)
    _gone(rig, volume)
    assert open_operations(rig) == ()
    check(rig, volume, [""])
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    check(rig, volume, [snapshot, ""])
    _reset(rig, clone)
    _delete(rig, clone)


def test_a_clone_is_killed_in_its_copy(rig: Rig, volume: str, tmp_path: Path) -> None:
    with held_up(rig, "convert", tmp_path) as command:
        clone = _cloning(rig, volume)
        command.reached()
        rig.stop("cinder", signal.SIGKILL)
    rig.start("cinder")
    _gone(rig, volume)
    check(rig, volume, [""])
    _reset(rig, clone)
    _delete(rig, clone)


def test_a_clone_whose_snapshot_cannot_be_made(rig: Rig, volume: str) -> None:
    """Cinder's scheduler has it made again; what the first try has left goes."""
    (rig.folder / "fail-at").write_text("overlay")
    clone = _cloning(rig, volume)
    assert _made(rig, clone) == "available"
    _gone(rig, volume)
    check(rig, volume, [""])
    _delete(rig, clone)


@pytest.mark.parametrize("of", ["volume", "snapshot", "attached"])
def test_a_backup_is_killed_in_its_copy(rig: Rig, volume: str, tmp_path: Path, of: str) -> None:
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    guest = Guest(rig, volume) if of == "attached" else None
    if guest is not None:
        guest.start()
    with held_up(rig, "convert", tmp_path) as command:
        asked = {"snapshot_id": snapshot} if of == "snapshot" else {}
        body = {"backup": {"volume_id": volume, "force": True, **asked}}
        backup = rig.volumes("POST", "/backups", body)["backup"]["id"]
        command.reached()
        rig.stop("cinder", signal.SIGKILL)
    rig.start("cinder")
    assert rig.status("backups", backup) == "error"
    _gone(rig, volume, snapshot)
    active = snapshot
    if guest is not None:
        guest.detach()
        # Of a guest that runs, what lies below the newest snapshot is pulled into its file.
        query = "select id from snapshots where volume_id = ? and id != ?"
        ((active,),) = rig.rows(query, volume, snapshot)
    named = "select id from volumes where display_name = ? and not deleted"
    read_until(lambda: rig.rows(named, f"backup-vol-{volume}"), lambda it: it == [])
    check(rig, volume, [active, ""])
    _, became = backed_up(rig, volume)
    assert became == "available"


def test_a_copy_that_fails_leaves_no_file(rig: Rig, volume: str) -> None:
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    before = _files(rig)
    with failing(rig, "convert"):
        _, became = backed_up(rig, volume)
        assert became == "error"
        clone = _cloning(rig, volume)
        asked = {"volume": {"size": 1, "snapshot_id": snapshot}}
        copy = rig.volumes("POST", "/volumes", asked)["volume"]["id"]
        assert [_made(rig, one) for one in (clone, copy)] == ["error", "error"]
    assert _files(rig) == before
    for one in (clone, copy):
        _delete(rig, one)
    # The copy is made, and what follows fails: its temporary snapshot is not deleted.
    (rig.folder / "fail-at").write_text("committed")
    _, became = backed_up(rig, volume)
    assert became == "error"
    _gone(rig, volume, snapshot)
    assert _files(rig) == before
    check(rig, volume, [snapshot, ""])


def test_a_revert_is_killed(rig: Rig, volume: str) -> None:
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    _die_at(rig, "overlay")
    rig.volumes("POST", f"/volumes/{volume}/action", {"revert": {"snapshot_id": snapshot}})
    _killed(rig)
    for kind, one in (("volumes", volume), ("snapshots", snapshot)):
        _reset(rig, one, kind)
    assert rig.delete(snapshot)[0] is None
    (rig.share / f"volume-{volume}.info.qmpsnap").write_text("")  # a write that was killed
    _delete(rig, volume)


def test_a_restore_is_killed_and_asked_for_again(rig: Rig, volume: str) -> None:
    """It waits for the last piece of the backup when it is killed, and is whole the next time."""
    path = rig.share / f"volume-{volume}"
    _write(path, 1023 * MIB, b"\2")
    content = images.sha256_of_bytes(path)
    backup, became = backed_up(rig, volume)
    assert became == "available"
    _write(path, 0, b"\3")
    piece = sorted((rig.folder / "state/backup").rglob(f"*{backup}-*"))[-1]
    kept = piece.rename(piece.with_name("kept"))
    os.mkfifo(piece)
    rig.volumes("POST", f"/backups/{backup}/restore", {"restore": {"volume_id": volume}})
    read_until(lambda: _first_byte(path), lambda it: it == b"\1")
    rig.stop("cinder", signal.SIGKILL)
    kept.replace(piece)
    rig.start("cinder")
    became = read_until(lambda: rig.status("volumes", volume), lambda it: it != "restoring-backup")
    assert became == "error_restoring"
    assert images.sha256_of_bytes(path) != content
    _reset(rig, volume)
    assert restored(rig, backup, volume) == (volume, "available")
    assert images.sha256_of_bytes(path) == content
    check(rig, volume, [""])


def _write(path: Path, offset: int, byte: bytes) -> None:
    """A MiB of one byte, as a guest's that is off by now."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(byte * MIB)


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(1)


def _die_at(rig: Rig, point: str) -> None:
    (rig.folder / "die-at").write_text(point)


def _killed(rig: Rig) -> None:
    """Wait until cinder-volume has died, and start it again."""
    read_until(lambda: (rig.folder / "die-at").exists(), lambda it: not it)
    rig.restart("cinder", signal.SIGKILL)


def _cloning(rig: Rig, volume: str) -> str:
    asked = {"volume": {"size": 1, "source_volid": volume}}
    clone: str = rig.volumes("POST", "/volumes", asked)["volume"]["id"]
    return clone


def _made(rig: Rig, volume: str) -> str | None:
    """What it has become."""
    return read_until(lambda: rig.status("volumes", volume), lambda it: it != "creating")


def _gone(rig: Rig, volume: str, *others: str) -> None:
    """The temporary snapshots of a volume go by themselves."""
    query = "select id from snapshots where volume_id = ? and not deleted"
    read_until(lambda: {one for (one,) in rig.rows(query, volume)}, lambda it: it == {*others})
    settled(rig, volume)


def _reset(rig: Rig, which: str, kind: str = "volumes") -> None:
    body = {"os-reset_status": {"status": "available"}}
    rig.volumes("POST", f"/{kind}/{which}/action", body)


def _delete(rig: Rig, volume: str) -> None:
    """Delete a volume; nothing on the share has its name then."""
    rig.volumes("DELETE", f"/volumes/{volume}")
    assert read_until(lambda: rig.status("volumes", volume), lambda it: it != "deleting") is None
    assert [one for one in _files(rig) if volume in one] == []


def _files(rig: Rig) -> set[str]:
    return {one.name for one in rig.share.iterdir()}
