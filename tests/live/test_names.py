"""Names of snapshots and of their files, where other tools, or people, have given them."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, assert_sound
from tests.rig.roads import MakeRig, Road, chain_rig, direct_rig, libvirt_rig
from tests.rig.situations import situation


def test_an_ending_is_no_name_of_a_snapshot(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    names = ["snap2.qcow2", "snap1.qcow2", "base.qcow2"]
    for name, below in zip(reversed(names), [None, *reversed(names)], strict=False):
        images.create_qcow2(tmp_path / name, SIZE, below, "qcow2" if below else None)
    with chain_rig(road, request, [(tmp_path / name, "qcow2") for name in names]) as rig:
        listed = rig.cli("list", "-o", "json").json["snapshots"]
        assert [one["name"] for one in listed] == ["snap2", "snap1"]
        for name in ("snap1", "snap1.qcow2"):
            said = rig.cli("delete", DISK, name, "--plan", "-o", "json")
            assert said.code == 0, said
            assert [one["file"] for one in said.json["disks"][0]["after"]] == names[::2]
        said = rig.cli("delete", DISK, "snap2.qcow2")
        assert said.code == 0, said
        assert rig.files() == names[1:]
        assert rig.cli("delete", DISK, "snap1").code == 0
        assert rig.files() == names[2:]


@situation(
    "Two guests are clones of one template, in one folder",
    happens="each snapshot's overlay is named after the guest's own file",
    code=0,
    then="Nothing.",
    kind=18,
)
def test_clones_share_no_names(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    template = tmp_path / "t.qcow2"
    images.create_qcow2(template, SIZE)
    with ExitStack() as stack:
        for name in ("vm1.qcow2", "vm2.qcow2"):
            images.create_qcow2(tmp_path / name, SIZE, template.name, "qcow2")
            chain = [(tmp_path / name, "qcow2"), (template, "qcow2")]
            rig = stack.enter_context(chain_rig(road, request, chain))
            for snapshot in ("before", "after"):
                said = rig.cli("create", DISK, snapshot)
                assert said.code == 0, said
            overlays = [f"{name}.after", f"{name}.before"]
            assert rig.files() == [*overlays, name, template.name]
            assert_sound(rig.disk())


def test_active_file_of_another_guest_is_not_offered_for_removal(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Here the names tell no clone from a snapshot."""
    template = tmp_path / "t"
    images.create_qcow2(template, SIZE)
    with ExitStack() as stack:
        rigs = []
        for name in ("t.vm1", "t.vm2"):
            images.create_qcow2(tmp_path / name, SIZE, template.name, "qcow2")
            chain = [(tmp_path / name, "qcow2"), (template, "qcow2")]
            rigs.append(stack.enter_context(chain_rig(road, request, chain)))
        assert rigs[0].cli("create", DISK, "before").code == 0
        said = rigs[1].cli("create", DISK, "before")
        assert said.code == 4, said
        assert "choose another name" in said.err
        assert "emove it" not in said.err
        assert rigs[1].files() == ["t.vm2", "t"]


@remedy("DiskAmbiguous")
def test_two_disks_of_one_serial_number(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    paths = {name: tmp_path / f"of-{name}" for name in ("vda", "vdb")}
    for path in paths.values():
        images.create_raw(path, SIZE)
    if road == "qmp":
        made = direct_rig(tmp_path, [raw_disk(path, name, SERIAL) for name, path in paths.items()])
    else:
        disks = [LibvirtDisk(path, "raw", name, SERIAL) for name, path in paths.items()]
        made = libvirt_rig(request.getfixturevalue("connection"), tmp_path, "raw", disks)
    with made as rig:
        said = rig.cli("create", SERIAL, "s1", "-o", "json")
        assert (said.code, '"DiskAmbiguous"' in said.err) == (4, True), said
        assert rig.cli("create", "vdb", "s1").code == 0  # by target, or device id
        assert [path.name for path in tmp_path.glob("*.s1")] == ["of-vdb.s1"]


@remedy("SnapshotAmbiguous")
def test_two_snapshots_of_one_name(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        other = rig.folder / "other.s1"
        assert rig.cli("create", DISK, "s1").code == 0
        assert rig.cli("create", DISK, "x", "--file", str(other)).code == 0
        rig.guest.write(DISK, 0, 65536, 1)
        content = rig.guest.read_sha256(DISK)
        said = rig.cli("delete", DISK, "s1", "-o", "json")
        assert (said.code, '"SnapshotAmbiguous"' in said.err) == (4, True), said
        for name in (f"{BASE}.s1", other.name):
            assert name in said.err
        assert rig.cli("delete", DISK, f"{BASE}.s1").code == 0
        assert rig.files() == [other.name, BASE]
        assert rig.guest.read_sha256(DISK) == content
