"""Encrypted volumes: qcow2 with LUKS inside, and so are their overlays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import libvirt
import pytest

from qmpsnap.guests.files.header import read_header
from tests.openstack.conftest import MakeRig
from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.pairings import KEY, Pairing, with_keys
from tests.openstack.rig.rig import Rig, as_user
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import formats, ledger_of
from tests.openstack.story.killing import kill_qemu
from tests.openstack.test_our_nova import Story, Told, concluded, hurried


def qcow2(pairing: Pairing) -> Pairing:
    """With keys, and volumes that are qcow2: of a stock Cinder no others can be encrypted."""
    with_key = with_keys(pairing)
    return replace(with_key, cinder=(*with_key.cinder, "nfs1.nfs_qcow2_volumes=True"))


@pytest.fixture(scope="module")
def stock(rig_of: MakeRig) -> Rig:
    """Unmodified Nova and Cinder, and keys."""
    return rig_of(qcow2(pairings.STOCK))


@pytest.fixture(
    scope="module",
    params=[
        qcow2(pairings.BY_XML),
        qcow2(pairings.AS_NOVA),
        with_keys(pairings.OURS),
    ],
    ids=["xml", "user", "both"],
)
def ours(rig_of: MakeRig, request: pytest.FixtureRequest) -> Rig:
    """Our compute side with a stock Cinder, by XML alone, and as the user nova; and both sides ours."""
    return rig_of(request.param)


class EncryptedGuest(Guest):
    """A guest whose volume is encrypted; what it holds is read with the key."""

    def _opened(self, format_: str, file: Path) -> list[str]:
        options = {"driver": format_, "file.filename": str(file)}
        for depth, _ in enumerate(self.chain()):
            options["backing." * depth + "encrypt.key-secret"] = "key"
        text = ",".join(f"{name}={value}" for name, value in options.items())
        return ["--object", f"secret,id=key,data={KEY}", "--image-opts", text]


class EncryptedStory(Story):
    """Every file is encrypted after each step, and what was written is in none of them."""

    def __init__(self, rig: Rig, guest: Guest) -> None:
        super().__init__(rig, guest)
        self.layers = [(self.base, "qcow2")]

    def check_told(self, snapshot: str, *expected: Told) -> None:
        told = self.rig.updates(snapshot)
        if "operation" not in told[0][0]:
            super().check_told(snapshot, *expected)
            return
        for (said, answer), (wanted, accepted) in zip(told, expected, strict=True):
            assert (said["status"], answer) == (f"{wanted['status']}_compute_complete", accepted)
            assert {*said["file_format"].values()} == {"qcow2"}
        assert {*formats(self.rig, self.guest.volume).values()} == {"qcow2"}

    def check(self) -> None:
        super().check()
        for name, _ in self.layers:
            file = self.rig.share / name
            assert read_header(str(file)).encryption == "luks"
            held = file.read_bytes()
            assert not [one for one in range(self.patterns) if bytes([one + 1]) * 4096 in held]


def encrypted_volume(rig: Rig) -> str:
    """Make a volume of an encrypted type."""
    types = rig.volumes("GET", "/types")["volume_types"]
    if not any(one["name"] == "luks" for one in types):
        made = rig.volumes("POST", "/types", {"volume_type": {"name": "luks"}})["volume_type"]["id"]
        how = {"provider": "luks", "cipher": "aes-xts-plain64", "key_size": 256}
        body = {"encryption": {**how, "control_location": "front-end"}}
        rig.volumes("POST", f"/types/{made}/encryption", body)
    return rig.create_volume(volume_type="luks")


@contextmanager
def attached(rig: Rig) -> Iterator[EncryptedGuest]:
    guest = EncryptedGuest(rig, encrypted_volume(rig))
    guest.start()
    try:
        yield guest
    finally:
        guest.close()


def test_stock_calls_an_encrypted_volume_raw(stock: Rig) -> None:
    """By default Cinder makes raw volumes. An encrypted one is qcow2, and Nova is told `raw`."""
    with stock.configured(with_keys(pairings.STOCK), "cinder"):
        volume = encrypted_volume(stock)
        assert stock.metadata(volume)["format"] == "raw"
        assert read_header(str(stock.share / f"volume-{volume}")).encryption == "luks"
        guest = EncryptedGuest(stock, volume)
        with pytest.raises(libvirt.libvirtError, match="Volume is not in LUKS format"):
            guest.start()
        guest.close()


def test_stock_takes_no_snapshot_of_a_guest_that_runs(stock: Rig) -> None:
    """Nova names no secret for the overlay. Nothing is written in plain: QEMU refuses the overlay."""
    with attached(stock) as guest:
        guest.io("write -P 1 0 1M")
        _, became, _ = stock.snapshot(guest.volume)
        assert became == "error"
        error = stock.ended("create")[1]
        assert "Parameter 'encrypt.key-secret' is required for cipher" in str(error)
        assert guest.live_chain() == [(f"volume-{guest.volume}", "qcow2")]
        assert guest.reads(1, "0", "1M")


def test_stock_does_not_start_a_guest_on_a_chain(stock: Rig) -> None:
    """Taken while it is not attached; libvirt is not told the secret of the file below."""
    volume = encrypted_volume(stock)
    assert stock.snapshot(volume)[1] == "available"
    guest = EncryptedGuest(stock, volume)
    with pytest.raises(libvirt.libvirtError, match="virStorageEncryptionEngine"):
        guest.start()
    guest.close()


def test_snapshots_in_any_order_with_restarts_in_between(ours: Rig) -> None:
    with attached(ours) as guest:
        story = EncryptedStory(ours, guest)
        story.write()
        first = story.create()
        story.write()
        second = story.create()
        story.write()
        third = story.create()
        story.write()
        guest.stop()
        guest.start()
        story.check()
        story.delete(second)
        story.write()
        story.delete(third)
        guest.stop()
        guest.start()
        story.write()
        story.delete(first)
        guest.stop()
        guest.start()
        story.check()
        by_xml = "allow_passthrough" in (ours.folder / "nova.conf").read_text()
        assert commits(ours, guest) == [by_xml]


def commits(rig: Rig, guest: Guest) -> list[bool]:
    """Of each commit in compute's journal: whether it is noted that its flush is not certain."""
    state = f"QMPSNAP_STATE={rig.folder}/state/qmpsnap-state"
    words = ["env", state, sys.executable, "-Wignore", "-m", "qmpsnap", "log", "-o", "json"]
    done = as_user(rig.layout, words) if rig.layout.user else run(words)
    return [
        any("is on the disk is not certain" in note for note in one["notes"])
        for one in json.loads(done.stdout)["operations"]
        if one["kind"] == "commit" and one["guest"] == f"rig-{guest.server[:8]}"
    ]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=True)


def turn(rig: Rig, volume: str, holds: int, *, more: int = 0) -> None:
    """Attach a volume to a guest that finds what it had written, writes some more, and goes."""
    with detached(rig, volume) as guest:
        for number in range(holds + more):
            if number >= holds:
                guest.io(f"write -P {number + 1} {number}M 1M")
            assert guest.reads(number + 1, f"{number}M", "1M"), number
        for name, format_ in guest.chain():
            assert format_ == "qcow2"
            assert read_header(str(rig.share / name)).encryption == "luks"


@contextmanager
def detached(rig: Rig, volume: str) -> Iterator[EncryptedGuest]:
    """A guest that runs on a volume, which is available again afterwards."""
    guest = EncryptedGuest(rig, volume)
    guest.start()
    try:
        yield guest
    finally:
        guest.detach()


def made_from(rig: Rig, size: int = 1, **source: str) -> str:
    """Make a volume from another, or from a snapshot."""
    volume: str = rig.volumes("POST", "/volumes", {"volume": {"size": size, **source}})["volume"][
        "id"
    ]
    became = read_until(
        lambda: rig.status("volumes", volume), lambda it: it not in ("creating", "downloading")
    )
    assert became == "available"
    assert rig.metadata(volume)["format"] == "qcow2"
    return volume


def test_everything_while_nobody_has_it_attached(rig_of: MakeRig) -> None:
    ours = rig_of(OURS)
    volume = encrypted_volume(ours)
    turn(ours, volume, 0, more=1)
    snapshots = []
    for holds in (1, 2, 3):
        snapshot, became, _ = ours.snapshot(volume)
        assert became == "available"
        snapshots.append(snapshot)
        turn(ours, volume, holds, more=1)
    oldest, middle, newest = snapshots
    copy = made_from(ours, 2, snapshot_id=middle)
    clone = made_from(ours, source_volid=volume)
    for snapshot in (middle, newest, oldest):
        assert ours.delete(snapshot)[0] is None
        turn(ours, volume, 4)
    assert [one.name for one in ours.share.glob(f"*{volume}*") if one.suffix != ".info"] == [
        f"volume-{volume}"
    ]
    ours.volumes("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
    read_until(lambda: ours.status("volumes", volume), lambda it: it != "extending")
    for one, holds, gib in ((volume, 4, 2), (copy, 2, 2), (clone, 4, 1)):
        turn(ours, one, holds, more=1)
        assert read_header(str(ours.share / f"volume-{one}")).virtual_size == gib << 30
        assert ours.snapshot(one)[1] == "available"
        turn(ours, one, holds + 1)


def test_a_snapshot_after_the_volumes_own_file_was_merged_away(rig_of: MakeRig) -> None:
    ours = rig_of(OURS)
    with attached(ours) as guest:
        story = EncryptedStory(ours, guest)
        story.write()
        story.delete(story.create())
        story.write()
        story.create()
        story.write()
        story.create()
        story.check()
        guest.detach()
        assert ours.snapshot(guest.volume)[1] == "available"
        turn(ours, guest.volume, 3)


def test_no_snapshot_is_taken_with_another_key(rig_of: MakeRig) -> None:
    """QEMU makes an overlay with any key; with two of them in its chain, nothing opens a volume."""
    ours = rig_of(OURS)
    volume = encrypted_volume(ours)
    turn(ours, volume, 0, more=1)
    first, became, _ = ours.snapshot(volume)
    assert became == "available"
    before = {one.name for one in ours.share.iterdir()}
    another = replace(OURS, cinder=(*OURS.cinder, f"key_manager.fixed_key={'a7' * 32}"))
    with ours.configured(another, "cinder"):
        refused, became, _ = ours.snapshot(volume)
        assert became == "error"
        with ledger_of(ours).reading() as ledger:
            standing = ledger.snapshot(refused)
        assert standing is not None
        assert "does not open its chain: Invalid password" in standing.why
        with detached(ours, volume) as guest:
            guest.io("write -P 2 1M 1M")
            assert ours.snapshot(volume)[1] == "error"
            assert guest.reads(1, "0", "1M")
    assert {one.name for one in ours.share.iterdir()} == before
    turn(ours, volume, 2, more=1)
    assert ours.snapshot(volume)[1] == "available"
    assert ours.delete(first)[0] is None
    turn(ours, volume, 3)


def test_a_stock_nova_does_not_block_the_volume(rig_of: MakeRig) -> None:
    """Its snapshot fails; what our volume side has made for it holds nothing."""
    ours = rig_of(with_keys(pairings.OUR_CINDER))
    volume = encrypted_volume(ours)
    with detached(ours, volume) as guest:
        guest.io("write -P 1 0 1M")
        failed, became, _ = ours.snapshot(volume)
        assert became == "error"
    assert ours.snapshot(volume)[1] == "available"
    assert ours.delete(failed)[0] is None
    assert not [*ours.share.glob(f"*{failed}*")]


OURS: Final = with_keys(pairings.OURS)
SLOWLY: Final = replace(OURS, nova=(*OURS.nova, "qmpsnap.bandwidth=1048576"))


@pytest.mark.parametrize(
    ("how", "victim"),
    [("commit", "compute"), ("commit", "qemu"), ("pull", "libvirtd"), ("pull", "qemu")],
)
def test_killed_during_a_merge(rig_of: MakeRig, how: str, victim: str) -> None:
    """Whoever dies, the volume is whole, and each file encrypted; what has failed may be tried again."""
    ours = rig_of(OURS)
    with attached(ours) as guest:
        story = EncryptedStory(ours, guest)
        story.write()
        first = story.create()
        for _ in range(6):
            story.write()
        second = story.create()
        story.write()
        guest.io("flush")
        merged = first if how == "commit" else second
        with ours.configured(SLOWLY, "compute"):
            ours.volumes("DELETE", f"/snapshots/{merged}")
            read_until(lambda: guest.domain.blockJobInfo("vda", 0), bool)
            if victim == "qemu":
                kill_qemu(guest)
                became = concluded(ours, merged, "deleting")
                assert became == "error_deleting"
                guest.start()
            else:
                ours.restart(victim, signal.SIGKILL)
                guest.connect()
                became = hurried(guest, merged)
        if became is not None:
            body = {
                "os-reset_status": {"status": "error"}
            }  # an operator's hand: Cinder asks for it
            ours.volumes("POST", f"/snapshots/{merged}/action", body)
            became, _ = ours.delete(merged)
        assert became is None
        left = second if how == "commit" else first
        story.files = {left: f"{story.base}.{second}"}
        story.layers = [(story.files[left], "qcow2"), (story.base, "qcow2")]
        story.check()
        guest.stop()
        guest.start()
        story.check()


def test_a_guest_that_is_off_is_refused(rig_of: MakeRig) -> None:
    """Its files would be opened by a QEMU that no secret is known to."""
    ours = rig_of(qcow2(pairings.BY_XML))
    with attached(ours) as guest:
        story = EncryptedStory(ours, guest)
        story.write()
        first = story.create()
        story.write()
        guest.stop()
        second, became, _ = ours.snapshot(guest.volume)
        assert became == "error"
        assert "DiskUnsuitable" in str(ours.ended("create")[1])
        assert ours.updates(second)[-1][0]["status"] == "error"
        assert ours.delete(first)[0] == "error_deleting"
        assert "DiskUnsuitable" in str(ours.ended("delete")[1])
        assert guest.chain() == story.layers
        assert guest.reads(1, "0", "1M")
        guest.start()
        assert guest.live_chain() == story.layers
        assert guest.reads(2, "1M", "1M")
