"""What becomes of the new file of a create that a stock Nova calls failed."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import libvirt
import msgspec
import pytest
from msgspec.structs import replace

from qmpsnap.ledger.files import moved
from qmpsnap.ledger.values import File, Format, Place, Statement, Witness
from tests.openstack.failed import failed, place_of
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, holds, ledger_of


def refused(rig: Rig, volume: str) -> bool:
    """Whether no snapshot can be taken of a volume."""
    return rig.snapshot(volume)[1] == "error"


def test_it_is_let_go_once_nobody_has_the_volume(our_cinder: Rig) -> None:
    rig = our_cinder
    with failed(rig) as (guest, snapshot):
        assert refused(rig, guest.volume)
        assert place_of(rig, guest.volume, snapshot) is Place.UNSURE
        guest.detach()
        newer, became, _ = rig.snapshot(guest.volume)
        assert became == "available"
        assert place_of(rig, guest.volume, snapshot) is Place.GONE
        check(rig, guest.volume, [newer, ""])
        assert holds(rig, guest.volume, 1, "0", "1M")


def test_it_stays_where_the_guest_has_been_on_it(our_cinder: Rig) -> None:
    """Switched all the same, by a libvirt that stock Nova had lost."""
    rig = our_cinder
    with failed(rig) as (guest, snapshot):
        overlay = f"volume-{guest.volume}.{snapshot}"
        disk = f"<disk name='vda'><source file='{rig.mount / overlay}'/></disk>"
        xml = f"<domainsnapshot><disks>{disk}</disks></domainsnapshot>"
        guest.domain.snapshotCreateXML(
            xml,
            libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT,
        )
        guest.io("write -P 2 1M 1M")
        guest.detach()
        assert refused(rig, guest.volume)
        assert place_of(rig, guest.volume, snapshot) is Place.UNSURE
        assert (rig.share / overlay).exists()


def test_it_stays_while_a_qemu_has_it(our_cinder: Rig) -> None:
    """Somebody has reset the state of the attachment, and the guest runs on."""
    rig = our_cinder
    with failed(rig) as (guest, snapshot):
        reset = {"os-reset_status": {"status": "available", "attach_status": "detached"}}
        rig.volumes("POST", f"/volumes/{guest.volume}/action", reset)
        assert refused(rig, guest.volume)
        assert place_of(rig, guest.volume, snapshot) is Place.UNSURE
        guest.close()


def test_it_stays_where_another_file_lies_on_it(our_cinder: Rig) -> None:
    """Stock drivers were at work since, and the guest writes above what is still empty."""
    rig = our_cinder
    with failed(rig) as (guest, snapshot):
        volume = guest.volume
        below, above = (f"volume-{volume}.{one}" for one in (snapshot, uuid.uuid4()))
        words = ["-f", "qcow2", "-u", "-b", below, "-F", "qcow2", str(rig.share / above), "1G"]
        subprocess.run(["qemu-img", "create", "-q", *words], check=True)
        guest.detach()
        assert refused(rig, volume)
        assert place_of(rig, volume, snapshot) is Place.UNSURE
        (rig.share / above).unlink()
        told = rig.share / f"volume-{volume}.info"
        told.write_text(json.dumps({"active": below, snapshot: below}))
        assert refused(rig, volume)
        assert place_of(rig, volume, snapshot) is Place.UNSURE
        told.unlink()
        newer, became, _ = rig.snapshot(volume)
        assert became == "available"
        check(rig, volume, [newer, ""])


def test_what_is_stated_to_have_left_goes_with_the_volume(our_cinder: Rig) -> None:
    rig = our_cinder
    with failed(rig) as (guest, snapshot):
        volume, overlay = guest.volume, f"volume-{guest.volume}.{snapshot}"
        words = ["set", volume, overlay, "--place", "left", "--why", "the guest does not have it"]
        ledger = ["--ledger", f"cinder:{rig.folder}/cinder.conf"]
        command = [sys.executable, "-Wignore", "-m", "qmpsnap", "ledger", *words, *ledger]
        subprocess.run(command, check=True, capture_output=True)
        assert rig.delete(snapshot)[0] is None
        guest.detach()
        assert _left_by_deletion(rig, volume) == []


def test_what_stock_has_left_goes_with_the_volume(our_cinder: Rig) -> None:
    """Stock has deleted the snapshot that failed; the import does not know who has the overlay."""
    rig = our_cinder
    volume = rig.create_volume()
    overlay = rig.share / f"volume-{volume}.{uuid.uuid4()}"
    words = ["-f", "qcow2", "-u", "-b", f"volume-{volume}", "-F", "raw", str(overlay), "1G"]
    subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    write = ["qemu-io", "-f", "qcow2", "-c", "write -P 3 1M 1M", str(overlay)]
    subprocess.run(write, check=True, capture_output=True)
    stated = Statement(
        file=overlay.name, format=Format.QCOW2, base=False, backing=f"volume-{volume}",
        place=Place.UNSURE, witness=Witness.NAME,
    )  # fmt: skip
    with ledger_of(rig).writing() as ledger:
        ledger.state(volume, [stated])
    assert _left_by_deletion(rig, volume) == []


def _left_by_deletion(rig: Rig, volume: str) -> list[str]:
    rig.volumes("DELETE", f"/volumes/{volume}")
    became = read_until(lambda: rig.status("volumes", volume), lambda it: it != "deleting")
    assert became is None
    return [one.name for one in rig.share.iterdir() if volume in one.name]


def test_a_volume_with_such_a_file_does_not_hold_up_others(our_cinder: Rig) -> None:
    """The start removes what has left the chains of all others."""
    rig = our_cinder
    one, two = sorted(rig.create_volume() for _ in range(2))
    left = {}
    with ledger_of(rig).writing() as ledger:
        for volume, place in ((one, Place.LEFT), (one, Place.UNSURE), (two, Place.LEFT)):
            file = f"volume-{volume}.{uuid.uuid4()}"
            (rig.share / file).write_bytes(b"x")
            stated = Statement(
                file=file, format=Format.QCOW2, base=False, backing=f"volume-{volume}",
                place=place, witness=Witness.OPERATOR,
            )  # fmt: skip
            ledger.state(volume, [stated])
            left[volume, place] = rig.share / file
    lain_on = rig.create_volume()
    lain_under, on_it = (rig.share / f"volume-{lain_on}.{uuid.uuid4()}" for _ in range(2))
    for path, backing in ((lain_under, f"volume-{lain_on}"), (on_it, lain_under.name)):
        words = ["-f", "qcow2", "-u", "-b", backing, "-F", "raw", str(path), "1M"]
        subprocess.run(["qemu-img", "create", "-q", *words], check=True)
    with ledger_of(rig).writing() as ledger:  # the one above is somebody else's
        stated = Statement(
            file=lain_under.name, format=Format.QCOW2, base=False, backing=f"volume-{lain_on}",
            place=Place.LEFT, witness=Witness.OPERATOR,
        )  # fmt: skip
        ledger.state(lain_on, [stated])
    named = [*_said_to_have_left(rig), lain_under]
    rig.restart("cinder")
    read_until(left[two, Place.LEFT].exists, lambda it: not it)
    assert left[one, Place.LEFT].exists()
    assert left[one, Place.UNSURE].exists()
    assert [one.name for one in named if not one.exists()] == []


def _said_to_have_left(rig: Rig) -> Iterator[Path]:
    """An active file, and a base, that the ledger has by an operator's word as what it may remove."""
    active, base = rig.create_volume(), rig.create_volume()
    overlays = {one: f"volume-{one}.{rig.snapshot(one)[0]}" for one in (active, base)}
    with ledger_of(rig).writing() as ledger:
        for volume, file in ((active, overlays[active]), (base, f"volume-{base}")):
            known = ledger.file(volume, file)
            assert known is not None
            ledger.state(volume, [replace(moved(known, Place.LEFT), witness=Witness.OPERATOR)])
            yield rig.share / file
        above = ledger.file(base, overlays[base])
        assert above is not None
        ledger.state(base, [replace(above.statement, backing=None, witness=Witness.OPERATOR)])


@pytest.mark.parametrize(
    ("commands", "shows"),
    [
        ((), True),
        (("resize -f qcow2 --shrink top 1M",), False),
        (("resize -f qcow2 top 4M",), False),
        (("rebase -u -f qcow2 -b other -F raw top",), False),
        (("snapshot -c one top",), False),
        (("create -f qcow2 -b base -F raw -o data_file=data top",), False),
        (("create -f raw top 2M",), False),
    ],
    ids=["as made", "shorter", "longer", "another base", "internal", "data file", "raw"],
)
def test_an_overlay_shows_what_lies_below(
    tmp_path: Path, commands: tuple[str, ...], shows: bool
) -> None:
    unsure = pytest.importorskip("qmpsnap.openstack.cinder.unsure")
    for one in ("create -f raw base 2M", "create -f qcow2 -b base -F raw top", *commands):
        subprocess.run(["qemu-img", *one.split()], cwd=tmp_path, check=True, capture_output=True)
    file = msgspec.convert(
        {
            "id": 1, "volume": "v", "at": "2026-11-26T20:00:00Z", "file": "top", "format": "qcow2",
            "base": False, "backing": "base", "place": Place.UNSURE, "witness": Witness.RULE,
        },
        File,
    )  # fmt: skip
    assert unsure.shows_what_lies_below(str(tmp_path), file, 2 << 20) is shows
