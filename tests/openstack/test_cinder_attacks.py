"""The guest writes an image header into its raw volume (D3): the volume stays what it is."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from tests.openstack.conftest import MakeRig
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.pairings import CINDER, OURS
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check, formats, holds

HEADERS = {
    "plain": ["1G"],
    "foreign backing": ["-u", "-b", "BAIT", "-F", "raw", "1G"],
    "own-looking backing": ["-u", "-b", "OWN", "-F", "raw", "1G"],
    "data file": ["-o", "data_file=BAIT,data_file_raw=on", "1G"],
    "oversized": ["8T"],
}


def header(folder: Path, kind: str, bait: Path, volume: str) -> Path:
    """The first bytes of such an image, as the guest has it."""
    image = folder / f"{kind.replace(' ', '-')}.qcow2"
    names = {"BAIT": str(bait), "OWN": f"volume-{volume}.abc"}
    words = [names.get(one, one.replace("BAIT", str(bait))) for one in HEADERS[kind]]
    options, size = words[:-1], words[-1]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, image, size], check=True)
    with image.open("r+b") as file:
        file.truncate(1 << 20)
    return image


@pytest.fixture(params=["our_cinder", "ours"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Our volume side, with either compute side."""
    found: Rig = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("kind", HEADERS)
def test_a_header_changes_nothing(rig: Rig, tmp_path: Path, kind: str) -> None:
    volume = rig.create_volume()
    guest = Guest(rig, volume)
    guest.start()
    bait = tmp_path / "bait"
    bait.touch()
    written = header(rig.folder, kind, bait, volume)
    guest.io(f"write -s {written} 0 1M")
    guest.io("write -P 5 1M 1M")
    with INotify() as notify:
        notify.add_watch(bait, flags.OPEN)
        first, became, _ = rig.snapshot(volume)
        assert became == "available"
        check(rig, volume, [first, ""], guest)
        guest.stop()
        guest.start()
        assert guest.reads(5, "1M", "1M")
        second, became, _ = rig.snapshot(volume)
        assert became == "available"
        assert rig.delete(first)[0] is None
        check(rig, volume, [second, ""], guest)
        guest.detach()
        clone = rig.create_volume(1, source_volid=volume)
        assert formats(rig, clone) == {"": "raw"}
        assert rig.delete(second)[0] is None
        rig.volumes("POST", f"/volumes/{volume}/action", {"os-extend": {"new_size": 2}})
        read_until(lambda: rig.status("volumes", volume), lambda it: it == "available")
        check(rig, volume, [""])
        for one in (volume, clone):
            assert holds(rig, one, 5, "1M", "1M")
            assert (rig.share / f"volume-{one}").read_bytes()[:4] == b"QFI\xfb"
        again = Guest(rig, clone)
        again.start()
        again.close()
        assert notify.read(timeout=0) == []


def test_nor_where_the_names_of_volumes_do_not_end_with_the_id(
    rig_of: MakeRig, tmp_path: Path
) -> None:
    """The id tells whose file it is; it was looked for at the end of the name."""
    rig = rig_of(
        replace(OURS, name="other-names", cinder=(*CINDER, "DEFAULT.volume_name_template=%s-vol"))
    )
    volume = rig.create_volume()
    bait = tmp_path / "bait"
    bait.touch()
    with (rig.share / f"{volume}-vol").open("r+b") as file:
        file.write(header(tmp_path, "foreign backing", bait, volume).read_bytes())
    guest = Guest(rig, volume)
    guest.start()
    assert guest.connection["format"] == "raw"
    snapshot, became, _ = rig.snapshot(volume)
    assert became == "available"
    guest.stop()
    guest.start()
    names = [(f"{volume}-vol.{snapshot}", "qcow2"), (f"{volume}-vol", "raw")]
    assert guest.live_chain() == names
    guest.io("write -P 5 1M 1M")
    guest.detach()
    assert rig.delete(snapshot)[0] is None
    assert holds(rig, volume, 5, "1M", "1M")
    assert (rig.share / f"{volume}-vol").read_bytes()[:4] == b"QFI\xfb"
    clone = rig.create_volume(1, source_volid=volume)
    assert holds(rig, clone, 5, "1M", "1M")
