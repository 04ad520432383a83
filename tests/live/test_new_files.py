"""Where a new file is made: in a folder that keeps files, and in no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from qmpsnap.guests.files.mounts import type_of
from tests.rig import images
from tests.rig.beside import device_or_skip
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, assert_sound
from tests.rig.roads import MakeRig, Road, chain_rig, device_rig
from tests.rig.situations import situation


@pytest.fixture
def device(tmp_path: Path) -> Iterator[str]:
    """A block device."""
    images.create_raw(tmp_path / "disk", SIZE)
    with device_or_skip(tmp_path / "disk") as name:
        yield name


@pytest.fixture
def lasting() -> Iterator[Path]:
    """A folder that is there after the next boot."""
    with TemporaryDirectory(prefix="qmpsnap-", dir="/var/tmp") as folder:
        if type_of(folder) == "tmpfs":
            pytest.skip("/var/tmp is in memory here")
        yield Path(folder)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder that is not."""
    if not os.path.isdir("/dev/shm") or type_of("/dev/shm") != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    with TemporaryDirectory(prefix="qmpsnap-", dir="/dev/shm") as folder:
        yield Path(folder)


@situation(
    "A disk is a block device",
    happens="a file in `/dev` is refused: it would fill the host's memory, and be gone at the next "
    "boot. With `--into` the overlay lies in a folder of your choice; `--allow foreign-layer` "
    "merges it back",
    code=4,
    then="Choose a folder: `qmpsnap create --into DIR`.",
    kind=7,
)
def test_block_device(
    road: Road, request: pytest.FixtureRequest, tmp_path: Path, device: str
) -> None:
    into = tmp_path / "into"
    into.mkdir()
    name = os.path.basename(device)
    with device_rig(road, request, device, tmp_path) as rig:
        for command in (("create", DISK, "s1"), ("create", DISK, "s1", "--plan")):
            said = rig.cli(*command)
            assert said.code == 4, said
            assert "no new file can be made in /dev: it is on " in said.err
        info = {"type": "qcow2", "new_file": f"{name}.s1", "snapshot_id": "s1"}
        said = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info))
        assert (said.code, said.status["status"]) == (4, "error"), said
        assert not os.path.exists(f"{device}.s1")
        assert rig.cli("create", DISK, "s1", "--into", str(into)).code == 0
        rig.guest.write(DISK, 0, MIB, 1)
        assert rig.cli("create", DISK, "s2").code == 0
        rig.guest.write(DISK, MIB, MIB, 2)
        content = rig.guest.read_sha256(DISK)
        layers = rig.disk().layers
        assert [one.path for one in layers] == [
            f"{into}/{name}.s1.s2",
            f"{into}/{name}.s1",
            device,
        ]
        assert [one.backing_name for one in layers] == [f"{name}.s1", device, None]
        assert rig.cli("delete", DISK, "s2", "--remove-file").code == 0
        said = rig.cli("delete", DISK, "s1")
        assert said.code == 4, said
        said = rig.cli("delete", DISK, "s1", "--allow", "foreign-layer", "--remove-file")
        assert said.code == 0, said
        assert os.listdir(into) == []
        assert rig.guest.read_sha256(DISK) == content
        assert rig.files() == [name]
    assert images.sha256_of_bytes(tmp_path / "disk") == content


@remedy("FolderUnsuitable")
def test_in_memory(road: Road, request: pytest.FixtureRequest, lasting: Path, memory: Path) -> None:
    images.create_raw(lasting / BASE, SIZE)
    with chain_rig(road, request, [(lasting / BASE, "raw")]) as rig:
        for arguments in (("--into", str(memory)), ("--file", str(memory / "x"))):
            said = rig.cli("create", DISK, "s1", *arguments)
            assert said.code == 4, said
            assert f"it is on tmpfs, in memory, and {lasting / BASE} is not" in said.err
            assert "`qmpsnap create --into DIR`" in said.err
        assert os.listdir(memory) == []
        (lasting / "chosen").mkdir()
        said = rig.cli("create", DISK, "s1", "--into", str(lasting / "chosen"))
        assert said.code == 0, said
        assert os.listdir(lasting / "chosen") == [f"{BASE}.s1"]


def test_beside_a_name_that_lies_in_memory(
    road: Road, request: pytest.FixtureRequest, lasting: Path, memory: Path
) -> None:
    images.create_raw(lasting / BASE, SIZE)
    (memory / BASE).symlink_to(lasting / BASE)
    with chain_rig(road, request, [(memory / BASE, "raw")]) as rig:
        said = rig.cli("create", DISK, "s1")
        assert said.code == 4, said
        assert not (memory / f"{BASE}.s1").exists()


def test_all_of_it_in_memory(road: Road, request: pytest.FixtureRequest, memory: Path) -> None:
    images.create_raw(memory / BASE, SIZE)
    with chain_rig(road, request, [(memory / BASE, "raw")]) as rig:
        assert rig.cli("create", DISK, "s1").code == 0
        assert_sound(rig.disk())


def test_file_of_its_own_name(make_rig: MakeRig, tmp_path: Path) -> None:
    with make_rig("raw") as rig:
        path = tmp_path / "elsewhere.qcow2"
        said = rig.cli("create", DISK, "s1", "--file", str(path))
        assert said.code == 0, said
        layers = rig.disk().layers
        assert [one.path for one in layers] == [str(path), str(rig.folder / BASE)]
        assert layers[0].backing_name == str(rig.folder / BASE)
        listed = rig.cli("list", "-o", "json").json["snapshots"]
        assert [one["name"] for one in listed] == ["elsewhere"]
        content = rig.guest.read_sha256(DISK)
        assert rig.cli("delete", DISK, "elsewhere").code == 4
        said = rig.cli("delete", DISK, "elsewhere", "--allow", "foreign-layer")
        assert said.code == 0, said
        assert rig.guest.read_sha256(DISK) == content


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--file", "x", "--into", "."), 2),
        (("--file", "x", "--also", "vdb"), 2),
        (("--file", ""), 4),
        (("--file", "x/"), 4),
        (("--file", "nbd:x"), 4),
        (("--into", ""), 4),
        (("--into", "a\nb"), 4),
        (("--into", "/proc/self"), 4),
        (("--into", "/sys"), 4),
        (("--into", "/nowhere"), 4),
        (("--into", "/etc/passwd"), 4),
    ],
)
def test_refused(make_rig: MakeRig, arguments: tuple[str, ...], code: int) -> None:
    with make_rig("raw") as rig:
        said = rig.cli("create", DISK, "s1", *arguments)
        assert said.code == code, said
        assert rig.files() == [BASE]
        assert rig.cli("create", DISK, "s1").code == 0
