"""Cinder migrates a volume to another back end: what is copied, and what the ledger says then."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from qmpsnap.ledger.values import File
from tests.openstack.conftest import MakeRig
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.held_up import held_up
from tests.openstack.rig.pairings import OURS, with_two_back_ends
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, holds, ledger_of


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
    return moved(rig, volume)


def moved(rig: Rig, volume: str) -> str:
    """What became of a migration."""
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


def there(rig: Rig, volume: str, pattern: int, offset: str) -> bool:
    """Whether the second share has the disk of a volume, with a pattern."""
    command = ["qemu-io", "-r", "-f", "raw", "-c", f"read -P {pattern} {offset} 1M"]
    file = rig.folder / "share2" / f"volume-{volume}"
    return subprocess.run([*command, file], capture_output=True, check=False).returncode == 0


def test_the_ledger_knows_a_volume_that_was_migrated(two: Rig) -> None:
    volume = created(two)
    assert migrated(two, volume) == "success"
    (known,) = files(two, volume)
    assert (known.file, known.format) == (f"volume-{volume}", "raw")
    assert {one.name for one in two.share.iterdir() if volume in one.name} == set()
    two.volumes("DELETE", f"/volumes/{volume}")
    read_until(lambda: two.status("volumes", volume), lambda it: it is None)
    assert files(two, volume) == ()


def test_an_image_is_not_migrated(two: Rig) -> None:
    volume = created(two)
    guest = Guest(two, volume)
    guest.start()
    guest.io("write -P 5 0 1M")
    snapshot, became, _ = two.snapshot(volume)
    assert became == "available"
    assert two.delete(snapshot)[0] is None  # by a pull
    guest.io("write -P 6 900M 1M")
    guest.io("flush")
    guest.detach()
    others = {one.name for one in (two.folder / "share2").iterdir()}
    assert migrated(two, volume) == "error"
    check(two, volume, [snapshot])
    assert holds(two, volume, 5, "0", "1M")
    assert two.status("volumes", volume) == "available"
    assert {one.name for one in (two.folder / "share2").iterdir()} == others
    assert "is not migrated" in (two.folder / "log/cinder.log").read_text(errors="replace")
    clone = two.create_volume(1, source_volid=volume)
    assert migrated(two, clone) == "success"
    assert there(two, clone, 5, "0")
    assert there(two, clone, 6, "900M")


def test_nothing_is_migrated_into_an_image(two: Rig) -> None:
    volume = created(two)
    pairing = with_two_back_ends(OURS, "nfs2.nfs_qcow2_volumes=True")
    with two.configured(pairing, "cinder"):
        assert migrated(two, volume) == "error"
    check(two, volume, [""])
    assert not (two.folder / "share2" / f"volume-{volume}").exists()


def test_the_overlay_of_a_clone_is_not_migrated(two: Rig, tmp_path: Path) -> None:
    """A clone begins between the look at the volume and its copy."""
    late = two.folder / "late"
    late.mkdir()
    pairing = with_two_back_ends(OURS, "nfs1.volume_driver=tests.openstack.rig.late.NfsDriver")
    with two.configured(pairing, "cinder"), held_up(two, "convert", tmp_path) as command:
        volume = created(two)
        with (two.share / f"volume-{volume}").open("r+b") as file:
            file.write(b"\1" * (1 << 20))
        (late / "copy").touch()
        asked = {"host": "rig@nfs2#nfs2", "force_host_copy": True}
        two.volumes("POST", f"/volumes/{volume}/action", {"os-migrate_volume": asked})
        read_until((late / "chosen").exists, bool)
        body = {"volume": {"size": 1, "source_volid": volume}}
        clone = two.volumes("POST", "/volumes", body)["volume"]["id"]
        command.reached()
        (late / "copy").unlink()
        assert moved(two, volume) == "error"
        command.let_go()
        became = read_until(lambda: two.status("volumes", clone), lambda it: it != "creating")
    shutil.rmtree(late)
    assert became == "available"
    check(two, volume, [""])
    assert holds(two, volume, 1, "0", "1M")
