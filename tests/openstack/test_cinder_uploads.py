"""A volume is uploaded as an image: every file of it by its format, whatever the guest has written."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from inotify_simple import INotify, flags

from tests.openstack.guest_header import with_header
from tests.openstack.rig import pairings
from tests.openstack.rig.guest import Guest
from tests.openstack.rig.images import Images, images_in
from tests.openstack.rig.rig import Rig
from tests.openstack.rig.waiting import read_until
from tests.openstack.seen import check


def uploaded(rig: Rig, images: Images, volume: str, disk_format: str) -> Path:
    """Upload a volume; returns the file that the image service has of it."""
    asked = {"image_name": "v", "container_format": "bare", "disk_format": disk_format}
    body = {"os-volume_upload_image": asked}
    answer = rig.volumes("POST", f"/volumes/{volume}/action", body, "3.0")
    image = answer["os-volume_upload_image"]["image_id"]
    read_until(lambda: rig.status("volumes", volume), lambda it: it != "uploading")
    assert images.known[image]["status"] == "active"
    return images.data(image)


def commands(text: str) -> list[str]:
    """The commands with qemu-img in a part of Cinder's log."""
    return [one for one in text.splitlines() if "Running cmd" in one and "qemu-img" in one]


@pytest.mark.parametrize("is_deep", [False, True], ids=["one file", "with a snapshot"])
def test_a_header_changes_nothing_of_an_upload(
    our_cinder: Rig, tmp_path: Path, *, is_deep: bool
) -> None:
    rig, bait = our_cinder, tmp_path / "bait"
    bait.write_bytes(b"bait" * 1024)
    chain = [""]
    with images_in(tmp_path) as images:
        address = f"DEFAULT.glance_api_servers=http://127.0.0.1:{images.server_address[1]}"
        pairing = replace(pairings.OUR_CINDER, cinder=(*pairings.CINDER, address))
        with rig.configured(pairing, "cinder"), INotify() as notify:
            volume = with_header(rig, tmp_path, "-u", "-b", str(bait), "-F", "raw")
            guest = Guest(rig, volume)
            guest.start()
            guest.io("write -P 5 1M 1M")
            if is_deep:
                snapshot, became, _ = rig.snapshot(volume)
                assert became == "available"
                guest.io("write -P 6 2M 1M")
                chain = [snapshot, ""]
            guest.detach()
            notify.add_watch(bait, flags.OPEN)
            log = rig.folder / "log/cinder.log"
            before = len(log.read_text(errors="replace"))
            for disk_format in ("raw", "qcow2"):
                image = uploaded(rig, images, volume, disk_format)
                active = rig.share / f"volume-{volume}{'.' if is_deep else ''}{chain[0]}"
                compare = ["qemu-img", "compare", "-f", disk_format, "-F"]
                own = "qcow2" if is_deep else "raw"
                subprocess.run([*compare, own, image, active], check=True)
            said = commands(log.read_text(errors="replace")[before:])
            assert notify.read(timeout=0) == []
            assert said
            assert [one for one in said if " -f " not in one] == []
            check(rig, volume, chain)
