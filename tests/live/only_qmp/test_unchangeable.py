"""Graphs that QEMU would not let be changed: known before, so refused before."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.rig import images
from tests.rig.disks import DiskSpec, qcow2_chain
from tests.rig.headers import recorded, without_format
from tests.rig.refusing import CREATE, by_name, merge, refused_alike
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig
from tests.rig.roads import direct_rig
from tests.rig.situations import situation

pytestmark = pytest.mark.qemu

TOP, MID = f"{BASE}.s2", f"{BASE}.s1"
FILTERS = {
    "throttle": {"driver": "throttle", "throttle-group": "group", "file": "vda-1-fmt"},
    "copy-on-read": {"driver": "copy-on-read", "file": "vda-1-fmt"},
    "compress": {"driver": "compress", "file": "vda-1-fmt"},
    "blkdebug": {"driver": "blkdebug", "image": "vda-1-fmt"},
}
GROUP = ("-object", "throttle-group,id=group")


def three(folder: Path) -> DiskSpec:
    """A disk of three layers."""
    images.create_qcow2(folder / BASE, SIZE)
    images.create_qcow2(folder / MID, SIZE, BASE, "qcow2")
    images.create_qcow2(folder / TOP, SIZE, MID, "qcow2")
    files = [(folder / name, "qcow2") for name in (TOP, MID, BASE)]
    return qcow2_chain(files, DISK, SERIAL)


@contextmanager
def filtered(folder: Path, filter_: Mapping[str, object]) -> Iterator[Rig]:
    """A filter over the layer in the middle, which is open for writing, as copy-on-read wants it."""
    disk = three(folder)
    *lower, top_file, top = disk.blockdevs
    lower = [
        {**one, "read-only": False} if one["node-name"] == "vda-1-fmt" else one for one in lower
    ]
    assert top["backing"] == "vda-1-fmt"
    node = {**filter_, "node-name": "filter"}
    disk = replace(disk, blockdevs=(*lower, node, top_file, {**top, "backing": "filter"}))
    with direct_rig(folder, disk, GROUP) as rig:
        yield rig


@remedy("FilterBetween")
@situation(
    "A filter (throttle, copy-on-read, blkdebug …) lies right above the file to be merged",
    happens="refused (`FilterBetween`), by `--plan` as well; QEMU would change the chain and leave "
    "the old name in a header",
    code=4,
    then="Take the filter out by `blockdev-reopen`, or start the guest without it.",
    kind=13,
)
@pytest.mark.parametrize("name", FILTERS)
def test_filter_between_layers(tmp_path: Path, name: str) -> None:
    with filtered(tmp_path, FILTERS[name]) as rig:
        content = rig.guest.read_sha256(DISK)
        said = refused_alike(rig, merge(MID, BASE), "a filter (filter) lies between")
        assert said == refused_alike(rig, by_name("delete", "s1"), "a filter (filter) lies between")
        assert "blockdev-reopen` of vda-0-fmt with the backing node vda-1-fmt" in said
        take_out(rig)
        assert rig.delete(MID, BASE).code == 0
        assert rig.files() == [TOP, BASE]
        assert rig.guest.read_sha256(DISK) == content


@remedy("FilterInTheWay")
@pytest.mark.parametrize("way", ["out", "off"])
def test_filter_above_the_file_that_a_header_is_to_name(tmp_path: Path, way: str) -> None:
    with filtered(tmp_path, FILTERS["throttle"]) as rig:
        rig.guest.write(DISK, 0, 65536, 1)
        without_format(tmp_path / TOP)
        said = rig.cli("create", DISK, "new")
        assert said.code == 0, said
        assert "a filter (filter) lies between the layer above" in said.err
        content = rig.guest.read_sha256(DISK)
        if way == "out":
            take_out(rig)
            done = rig.cli("delete", DISK, "new", "--method", "commit")
            assert done.code == 0, done
            assert f"repaired: the header of {TOP}" in done.err
        else:
            rig.guest.qemu_io(DISK, "flush")
            rig.kill()
            (command,) = re.findall(r"With the guest off: `([^`]+)`", said.err)
            subprocess.run(shlex.split(command), check=True)
            assert images.sha256_of(tmp_path / f"{BASE}.new", "qcow2") == content
        assert recorded(tmp_path / TOP) == (MID, "qcow2")
        if way == "out":
            assert rig.guest.read_sha256(DISK) == content


def take_out(rig: Rig) -> None:
    """Take the filter out from between the layers while the guest runs."""
    options = {
        "driver": "qcow2",
        "node-name": "vda-0-fmt",
        "file": "vda-0-file",
        "backing": "vda-1-fmt",
    }
    rig.guest.qmp("blockdev-reopen", {"options": [options]})
    rig.guest.qmp("blockdev-del", {"node-name": "filter"})


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(
    ("command", "files"),
    [
        (merge(TOP, MID), [MID, BASE]),
        (merge(BASE, None), [TOP, BASE]),
        (merge(None, None), [TOP]),
    ],
)
def test_filter_that_is_not_in_the_way(
    tmp_path: Path, name: str, command: tuple[str, ...], files: list[str]
) -> None:
    with filtered(tmp_path, FILTERS[name]) as rig:
        content = rig.guest.read_sha256(DISK)
        said = rig.cli(*command)
        assert (said.code, rig.files()) == (0, files), said
        assert rig.guest.read_sha256(DISK) == content


@pytest.mark.parametrize("name", ["throttle", "copy-on-read"])
def test_filter_of_the_device_stays_above_the_base(tmp_path: Path, name: str) -> None:
    """An active commit closes what it drops; the filter is the user's, and reads the base by then."""
    disk = three(tmp_path)
    node = {**FILTERS[name], "node-name": "filter", "file": disk.root}
    above = replace(disk, blockdevs=(*disk.blockdevs, node), root="filter")
    with direct_rig(tmp_path, above, GROUP) as rig:
        content = rig.guest.read_sha256(DISK)
        (plan,) = rig.cli(*merge(TOP, MID), "--plan", "-o", "json").json["disks"]
        closings = [one for one in plan["steps"] if one["what"] == "blockdev-del"]
        closed = [one["arguments"]["node-name"] for one in closings]
        assert closed == ["vda-0-fmt", "vda-0-file"]
        said = rig.cli(*merge(TOP, MID))
        assert (said.code, rig.files()) == (0, [MID, BASE]), said
        assert "stays open" not in said.err
        assert (rig.disk().root, rig.guest.read_sha256(DISK)) == ("filter", content)


OPERATIONS = [CREATE, merge(MID, BASE), merge(TOP, MID), merge(None, None)]


@situation(
    "QEMU was started with a copy-on-read filter that reaches down to a `bottom`",
    happens="every operation on the disk is refused, by `--plan` as well: QEMU freezes the chain",
    code=4,
    then="Start the guest without `bottom`.",
    kind=13,
)
@pytest.mark.parametrize("command", OPERATIONS)
def test_copy_on_read_with_a_bottom(tmp_path: Path, command: tuple[str, ...]) -> None:
    disk = three(tmp_path)
    node = {"driver": "copy-on-read", "node-name": "cor", "file": disk.root, "bottom": "vda-1-fmt"}
    frozen = replace(disk, blockdevs=(*disk.blockdevs, node), root="cor")
    with direct_rig(tmp_path, frozen) as rig:
        refused_alike(rig, command, "copy-on-read filter (cor) with a `bottom`")
    without = {key: value for key, value in node.items() if key != "bottom"}
    with direct_rig(tmp_path, replace(frozen, blockdevs=(*disk.blockdevs, without))) as rig:
        assert rig.cli(*command).code == 0  # the way out


@situation(
    "Somebody fleeces the disk (copy-before-write, snapshot-access)",
    happens="every operation on the disk is refused, by `--plan` as well",
    code=4,
    then="Wait until the backup has ended and its filter is gone.",
    kind=13,
)
@pytest.mark.parametrize("command", OPERATIONS)
def test_copy_before_write(tmp_path: Path, command: tuple[str, ...]) -> None:
    disk = three(tmp_path)
    images.create_qcow2(tmp_path / "copy", SIZE)
    copy = {"driver": "qcow2", "node-name": "copy", "file": {"driver": "file", "filename": str(tmp_path / "copy")}}  # fmt: skip
    added = {"driver": "copy-before-write", "node-name": "cbw", "file": disk.root, "target": "copy"}
    access = {"driver": "snapshot-access", "node-name": "access", "file": "cbw"}
    fleeced = replace(disk, blockdevs=(*disk.blockdevs, copy, added, access), root="cbw")
    with direct_rig(tmp_path, fleeced) as rig:
        refused_alike(rig, command, "filter (cbw, copy-before-write)")
        rig.guest.qmp("blockdev-del", {"node-name": "access"})
        swap = {"path": DISK, "property": "drive", "value": disk.root}
        rig.guest.qmp("qom-set", {**swap, "path": f"/machine/peripheral/{DISK}"})
        rig.guest.qmp("blockdev-del", {"node-name": "cbw"})
        assert rig.cli(*command).code == 0  # the way out


@situation(
    "QEMU was started with `-snapshot`, or a drive with `snapshot=on`",
    happens="every operation on the disk is refused, by `--plan` as well: what the guest writes is "
    "thrown away",
    code=4,
    then="Start the guest without it.",
    kind=13,
)
@pytest.mark.parametrize("how", ["-snapshot", "snapshot=on"])
@pytest.mark.parametrize("command", [CREATE, merge(None, None)])
def test_snapshot_mode(tmp_path: Path, how: str, command: tuple[str, ...]) -> None:
    images.create_qcow2(tmp_path / BASE, SIZE)
    drive = f"file={tmp_path / BASE},format=qcow2,if=none,id=drive"
    device = ("-device", f"virtio-blk-pci,id={DISK},serial={SERIAL},drive=drive")
    wholly = ["-snapshot", "-drive", drive] if how == "-snapshot" else ["-drive", f"{drive},{how}"]
    with direct_rig(tmp_path, [], [*wholly, *device]) as rig:
        refused_alike(rig, command, "QEMU throws away what the guest writes")
    with direct_rig(tmp_path, [], ["-drive", drive, *device]) as rig:
        assert rig.create("s1").code == 0  # the way out
