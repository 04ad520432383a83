"""
Cinder's own backup service beside the drivers: what a backup holds, and what a restore leaves.

The service reads and hashes every byte, 9 s of processor for 1 GiB. So the files of volumes are cut
to 16 MiB here, as short as a stock restore leaves them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from qmpsnap.guests.files.header import read_header
from tests.openstack.conftest import MakeRig
from tests.openstack.guest_header import with_header
from tests.openstack.rig.backups import backed_up, held, restored
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.pairings import OUR_NOVA, OURS, Pairing, with_backups, with_keys
from tests.openstack.rig.rig import ApiError, Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, formats, holds
from tests.openstack.test_cinder_uploads import commands
from tests.openstack.test_encrypted import encrypted_volume

MIB = 1 << 20
GIB = 1 << 30
SHORT = 16 * MIB


def backing_up(rig_of: MakeRig, pairing: Pairing) -> Iterator[Rig]:
    """A rig with the service, for as long as these tests take."""
    rig = rig_of(pairing)
    with rig.configured(with_backups(pairing), "cinder"):
        yield rig


@pytest.fixture(scope="module", name="ours")
def ours_backing_up(rig_of: MakeRig) -> Iterator[Rig]:
    """Both sides are ours."""
    yield from backing_up(rig_of, OURS)


@pytest.fixture(scope="module", name="stock")
def stock_backing_up(rig_of: MakeRig) -> Iterator[Rig]:
    """An unmodified Cinder; whose compute it is makes no difference here."""
    yield from backing_up(rig_of, OUR_NOVA)


def own(rig: Rig, volume: str) -> Path:
    """The file of a volume that is not an overlay."""
    return rig.share / f"volume-{volume}"


def active(rig: Rig, volume: str) -> Path:
    """The file that a guest writes to."""
    info = rig.info(volume)
    return own(rig, volume) if info is None else rig.share / info["active"]


def attacked(rig: Rig, folder: Path, bait: Path) -> str:
    """A raw volume whose guest has written the header of an image that lies on another file."""
    volume = with_header(rig, folder, "-u", "-b", str(bait), "-F", "raw")
    with own(rig, volume).open("r+b") as file:
        file.truncate(SHORT)
        file.seek(MIB)
        file.write(b"\5" * MIB)
    return volume


def with_snapshot(rig: Rig, folder: Path, bait: Path) -> tuple[str, Guest, str]:
    """The same, and a snapshot with 6 written after it; the volume is attached."""
    volume = attacked(rig, folder, bait)
    guest = Guest(rig, volume)
    guest.start()
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    guest.io("write -P 6 2M 1M")
    guest.io("flush")
    return volume, guest, snapshot


def patterns(data: bytes) -> list[int]:
    """What lies in the second, third and fourth MiB; -1 for no single pattern."""
    pieces = [data[at * MIB : (at + 1) * MIB] for at in (1, 2, 3)]
    return [one[0] if one and one == one[:1] * MIB else -1 for one in pieces]


def reset(rig: Rig, volume: str) -> None:
    """As an operator does after an error."""
    rig.volumes("POST", f"/volumes/{volume}/action", {"os-reset_status": {"status": "available"}})


@pytest.fixture(name="bait")
def a_bait(tmp_path: Path) -> Path:
    """A file that nobody has to open."""
    bait = tmp_path / "bait"
    bait.write_bytes(b"bait" * 1024)
    return bait


@pytest.mark.parametrize("side", ["stock", "ours"])
def test_a_header_is_a_part_of_the_content(
    request: pytest.FixtureRequest, side: str, tmp_path: Path, bait: Path
) -> None:
    rig: Rig = request.getfixturevalue(side)
    volume = attacked(rig, tmp_path, bait)
    log = rig.folder / "log/cinder.log"
    before = len(log.read_text(errors="replace"))
    with INotify() as notify:
        notify.add_watch(bait, flags.OPEN)
        backup, became = backed_up(rig, volume)
        assert became == "available"
        content = held(rig, backup)
        assert content == own(rig, volume).read_bytes()
        again, became = restored(rig, backup)
        assert became == "available"
        assert rig.metadata(again)["format"] == "raw"
        with own(rig, again).open("rb") as file:
            assert file.read(2 * MIB) == content[: 2 * MIB]
            # Zeros at the end of a new volume are not written; stock leaves its file short.
            assert os.fstat(file.fileno()).st_size == (GIB if side == "ours" else 2 * MIB)
        guest = Guest(rig, again)
        guest.start()
        guest.close()
        assert notify.read(timeout=0) == []
    if side == "ours":
        said = commands(log.read_text(errors="replace")[before:])
        assert [one for one in said if " -f " not in one] == []
        check(rig, again, [""])
        _, became = restored(rig, backup, volume)
        assert became == "available"
        assert own(rig, volume).stat().st_size == GIB
        check(rig, volume, [""])


def test_all_that_a_guest_sees_is_backed_up(ours: Rig, tmp_path: Path, bait: Path) -> None:
    volume, guest, snapshot = with_snapshot(ours, tmp_path, bait)
    others = {one for one in ours.share.iterdir() if volume not in one.name}
    with INotify() as notify:
        notify.add_watch(bait, flags.OPEN)
        found = {}
        found["attached"], became = backed_up(ours, volume)
        assert (became, ours.status("volumes", volume)) == ("available", "in-use")
        found["snapshot"], became = backed_up(ours, volume, snapshot_id=snapshot)
        assert (became, ours.status("snapshots", snapshot)) == ("available", "available")
        chain = [active(ours, volume).name.rpartition(".")[2], ""]
        check(ours, volume, chain, guest)
        guest.io("write -P 7 3M 1M")
        guest.detach()
        found["detached"], became = backed_up(ours, volume)
        assert (became, ours.status("volumes", volume)) == ("available", "available")
        check(ours, volume, chain)
        # The backup is available before its temporary volume is deleted.
        read_until(
            lambda: {one for one in ours.share.iterdir() if volume not in one.name},
            lambda it: it == others,
        )
        again, became = restored(ours, found["detached"])
        assert became == "available"
        assert notify.read(timeout=0) == []
    contents = {name: held(ours, one) for name, one in found.items()}
    assert {name: patterns(one) for name, one in contents.items()} == {
        "attached": [5, 6, 0],
        "snapshot": [5, 0, 0],
        "detached": [5, 6, 7],
    }
    assert {one[:65536] for one in contents.values()} == {own(ours, volume).read_bytes()[:65536]}
    check(ours, again, [""])
    assert formats(ours, again) == {"": "raw"}
    assert holds(ours, again, 7, "3M", "1M")


def test_nothing_is_restored_into_an_overlay(ours: Rig, tmp_path: Path, bait: Path) -> None:
    backup, _ = backed_up(ours, attacked(ours, tmp_path, bait))
    volume, guest, snapshot = with_snapshot(ours, tmp_path, bait)
    guest.detach()
    before = active(ours, volume).read_bytes()
    _, became = restored(ours, backup, volume)
    assert became == "error_restoring"
    assert active(ours, volume).read_bytes() == before
    assert "it has snapshots" in (ours.folder / "log/cinder.log").read_text(errors="replace")
    reset(ours, volume)
    check(ours, volume, [snapshot, ""])
    again = Guest(ours, volume)
    again.start()
    assert again.reads(6, "2M", "1M")
    again.detach()


def test_what_a_pull_has_left_as_an_image_is_backed_up_as_a_disk(
    ours: Rig, tmp_path: Path, bait: Path
) -> None:
    older, _ = backed_up(ours, attacked(ours, tmp_path, bait))
    volume, guest, snapshot = with_snapshot(ours, tmp_path, bait)
    assert ours.delete(snapshot)[0] is None
    check(ours, volume, [snapshot], guest)
    attached, became = backed_up(ours, volume)
    assert (became, ours.status("volumes", volume)) == ("available", "in-use")
    guest.detach()
    detached, became = backed_up(ours, volume)
    assert (became, ours.status("volumes", volume)) == ("available", "available")
    for one in (attached, detached):
        assert patterns(held(ours, one)) == [5, 6, 0]
    again, became = restored(ours, detached)
    assert became == "available"
    check(ours, again, [""])
    assert formats(ours, again) == {"": "raw"}
    assert holds(ours, again, 6, "2M", "1M")
    before = active(ours, volume).read_bytes()
    _, became = restored(ours, older, volume)
    assert became == "error_restoring"
    assert active(ours, volume).read_bytes() == before
    assert "backups hold what new volumes" in (ours.folder / "log/cinder.log").read_text()
    reset(ours, volume)
    check(ours, volume, [active(ours, volume).name.rpartition(".")[2]])
    guest = Guest(ours, volume)
    guest.start()
    assert guest.reads(6, "2M", "1M")
    guest.detach()


def without_guest(rig: Rig, folder: Path, bait: Path) -> tuple[str, Guest]:
    """A volume that is attached to a guest which has gone: no snapshot can be taken of it."""
    volume = attacked(rig, folder, bait)
    guest = Guest(rig, volume)
    guest.start()
    guest.close()
    return volume, guest


def test_a_backup_that_cannot_begin_is_told(ours: Rig, tmp_path: Path, bait: Path) -> None:
    volume, guest = without_guest(ours, tmp_path, bait)
    _, became = backed_up(ours, volume)
    assert (became, ours.status("volumes", volume)) == ("error", "in-use")
    check(ours, volume, [""], guest)


def test_stock_leaves_a_backup_that_cannot_begin(stock: Rig, tmp_path: Path, bait: Path) -> None:
    volume, _ = without_guest(stock, tmp_path, bait)
    log = stock.folder / "log/cinder.log"
    before = log.stat().st_size
    asked = {"volume_id": volume, "force": True}
    backup = stock.volumes("POST", "/backups", {"backup": asked})["backup"]["id"]
    read_until(
        lambda: log.read_bytes()[before:], lambda it: b"Exception during message handling" in it
    )
    assert stock.status("backups", backup) == "creating"
    assert stock.status("volumes", volume) == "backing-up"


def test_backups_have_the_format_of_new_volumes(ours: Rig, tmp_path: Path, bait: Path) -> None:
    raw, guest, _ = with_snapshot(ours, tmp_path, bait)
    guest.detach()
    of_raw, became = backed_up(ours, raw)
    assert became == "available"
    assert patterns(held(ours, of_raw)) == [5, 6, 0]
    plain = attacked(ours, tmp_path, bait)
    content = own(ours, plain).read_bytes()
    pairing = with_backups(OURS, "nfs1.nfs_qcow2_volumes=True")
    with ours.configured(pairing, "cinder"), INotify() as notify:
        notify.add_watch(bait, flags.OPEN)
        images = {one: backed_up(ours, one) for one in (raw, plain)}
        for one, pattern, offset in ((raw, 6, "2M"), (plain, 5, "1M")):
            of_one, became = images[one]
            assert became == "available"
            assert held(ours, of_one).startswith(b"QFI\xfb")
            into, became = restored(ours, of_one)
            assert became == "available"
            check(ours, into, [""])
            assert formats(ours, into) == {"": "qcow2"}
            assert holds(ours, into, pattern, offset, "1M")
        _, became = restored(ours, images[plain][0], plain)
        assert became == "error_restoring"
        assert own(ours, plain).read_bytes() == content
        volume = ours.create_volume()
        file = own(ours, volume)  # as long as the volume: made with preallocation=metadata
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", file, "1G"], check=True)
        write = ["qemu-io", "-f", "qcow2", "-c", "write -P 8 1M 1M"]
        subprocess.run([*write, file], check=True, stdout=subprocess.DEVNULL)
        of_qcow2, became = backed_up(ours, volume)
        assert held(ours, of_qcow2) == file.read_bytes()
        larger = ours.create_volume(2)
        for into in (volume, larger):
            _, became = restored(ours, of_qcow2, into)
            assert became == "available"
            check(ours, into, [""])
            assert formats(ours, into) == {"": "qcow2"}
            assert holds(ours, into, 8, "1M", "1M")
        assert read_header(str(own(ours, larger))).virtual_size == 2 * GIB
        _, became = restored(ours, of_raw, volume)
        assert became == "error_restoring"
        assert ours.metadata(volume)["format"] == "qcow2"
        reset(ours, volume)
        with pytest.raises(ApiError):
            Guest(ours, volume)
        assert notify.read(timeout=0) == []
        reset(ours, volume)
        _, became = restored(ours, of_qcow2, volume)
        assert became == "available"
        check(ours, volume, [""])
        assert holds(ours, volume, 8, "1M", "1M")


def test_an_encrypted_volume_is_backed_up_as_the_image_that_it_is(rig_of: MakeRig) -> None:
    pairing = with_keys(OURS)
    rig = rig_of(pairing)
    with rig.configured(with_backups(pairing), "cinder"):
        volume = encrypted_volume(rig)
        backup, became = backed_up(rig, volume)
        assert became == "available"
        image = own(rig, volume).read_bytes()
        assert held(rig, backup) == image
        _, became = restored(rig, backup, volume)
        assert became == "available"
        assert own(rig, volume).read_bytes() == image
        check(rig, volume, [""])
        longer = rig.create_volume(gib=2, volume_type="luks")
        _, became = restored(rig, backup, longer)
        assert became == "available"
        assert read_header(str(own(rig, longer))).virtual_size == 2 << 30
        check(rig, longer, [""])
        snapshot, became, _ = rig.snapshot(volume)
        assert became == "available"
        _, became = backed_up(rig, volume)
        assert (became, rig.status("volumes", volume)) == ("error", "available")
        check(rig, volume, [snapshot, ""])


def test_stock_backs_up_and_overwrites_the_active_file_alone(
    stock: Rig, tmp_path: Path, bait: Path
) -> None:
    whole, _ = backed_up(stock, attacked(stock, tmp_path, bait))
    volume = stock.create_volume()
    guest = Guest(stock, volume)
    guest.start()
    guest.io("write -P 5 1M 1M")
    _, became, _ = stock.snapshot(volume)
    assert became == "available"
    guest.io("write -P 6 2M 1M")
    guest.detach()
    backup, became = backed_up(stock, volume)
    assert became == "available"
    assert held(stock, backup) == active(stock, volume).read_bytes()
    assert own(stock, volume).stat().st_size > len(held(stock, backup))
    _, became = restored(stock, whole, volume)
    assert became == "available"
    assert active(stock, volume) != own(stock, volume)
    assert active(stock, volume).read_bytes() == held(stock, whole)
    assert stock.metadata(volume)["format"] == "qcow2"
    with pytest.raises(ApiError):
        Guest(stock, volume)
