"""Two devices of one guest on one node: what is done to one is done to both, and said."""

from __future__ import annotations

from pathlib import Path

from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.rig import MIB
from tests.rig.roads import direct_rig


def test_is_said_in_plan_and_result(tmp_path: Path) -> None:
    images.create_raw(tmp_path / "a", MIB)
    disk = raw_disk(tmp_path / "a", "vda", "1")
    second = ["-device", f"virtio-blk-pci,id=vdb,drive={disk.root},share-rw=on"]
    words = "vdb and vda are on one node: this changes all of them"
    with direct_rig(tmp_path, disk, second) as rig:
        plan = rig.cli("create", "vda", "s1", "--plan", "-o", "json")
        assert plan.json["disks"][0]["why"] == words
        made = rig.cli("create", "vda", "s1", "-o", "json")
        assert (made.code, words in made.json["notes"]) == (0, True), made
        with rig.host() as host:
            chains = [[layer.file for layer in one.layers] for one in host.read().disks]
        assert chains == [["a.s1", "a"]] * 2
        plan = rig.cli("delete", "vda", "s1", "--method", "pull", "--plan", "-o", "json")
        assert words in plan.json["disks"][0]["why"]
        gone = rig.cli("delete", "vda", "s1", "--method", "pull", "-o", "json")
        assert (gone.code, words in gone.json["notes"]) == (0, True), gone
