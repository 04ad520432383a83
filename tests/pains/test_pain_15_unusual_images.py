"""
Encrypted and other unusual images: accepted, and then broken.

apache/cloudstack#13188, fox-it/dissect.target#1154.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.guests.files.mounts import type_of
from tests.layouts.layout import Image
from tests.layouts.running import Kept
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.beside import device_or_skip
from tests.rig.disks import DiskSpec, qcow2_chain, raw_disk
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import direct_rig

KEY = "secret,id=key,data=correct-horse"
LUKS = Image(name=BASE, format="luks", options="iter-time=200,key-secret=key", object=KEY, size=MIB)
SECRET = b"patient 4711: all is well. " * 1024


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Makes the encrypted image once: that takes seconds."""
    return Kept(tmp_path_factory.mktemp("kept"))


class TestEncryptedDisk(Pain[Rig]):
    """Its overlay is not encrypted: from the snapshot on, the guest writes in plain."""

    guard = Guard(where="qmpsnap.operations.plan_snapshot.usable", instead=lambda disk: disk)

    @pytest.fixture
    def world(self, kept: Kept, share: Path) -> Iterator[Rig]:
        kept.put(LUKS, share)
        node = {"driver": "luks", "node-name": "root", "key-secret": "key"}
        file = {"driver": "file", "filename": str(share / BASE)}
        disk = DiskSpec(blockdevs=({**node, "file": file},), root="root", id=DISK, serial=SERIAL)
        with direct_rig(share, disk, ["-object", KEY]) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("create", DISK, "s1")
        assert said.code == 4, said
        assert "is encrypted" in said.err
        assert world.files() == [BASE]
        world.guest.write_bytes(DISK, 0, SECRET)
        assert SECRET not in (world.folder / BASE).read_bytes()

    def hurts(self, world: Rig) -> None:
        assert world.files() == [f"{BASE}.s1", BASE]
        world.guest.write_bytes(DISK, 0, SECRET)
        world.guest.qemu_io(DISK, "flush")
        assert SECRET in (world.folder / f"{BASE}.s1").read_bytes()


class TestDataFile(Pain[Rig]):
    """The data of this layer lies in another file, which no chain names."""

    guard = Guard(where="qmpsnap.operations.plan_merge.usable", instead=lambda disk: disk)

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        base = str(share / BASE)
        options = ("-o", f"data_file={share / 'data'},data_file_raw=on")
        qemu_img.run("create", base, "-f", "qcow2", *options, base, str(MIB))
        images.create_qcow2(share / f"{BASE}.s1", MIB, BASE, "qcow2")
        chain = [(share / f"{BASE}.s1", "qcow2"), (share / BASE, "qcow2")]
        with direct_rig(share, qcow2_chain(chain, DISK, SERIAL)) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, "s1", "--method", "pull", "--remove-file")
        assert said.code == 4, said
        assert "keeps its data in another file" in said.err
        assert (world.folder / BASE).exists()

    def hurts(self, world: Rig) -> None:
        assert world.files() == [f"{BASE}.s1"]
        assert not (world.folder / BASE).exists()  # the file that named
        assert (world.folder / "data").exists()  # the one that nobody knows of any more


class TestBlockDevice(Pain[Rig]):
    """Its name lies in `/dev`, where a file is in memory until the next boot."""

    guard = Guard(where="qmpsnap.guests.files.overlay.loses", instead=lambda *_: None)

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        images.create_raw(share / BASE, MIB)
        with device_or_skip(share / BASE) as device:
            disk = raw_disk(device, DISK, SERIAL)
            file, raw = disk.blockdevs
            disk = replace(disk, blockdevs=({**file, "driver": "host_device"}, raw))
            with direct_rig(share, disk) as rig:
                yield rig
            Path(f"{device}.s1").unlink(missing_ok=True)

    def answered(self, world: Rig) -> None:
        said = world.cli("create", DISK, "s1")
        assert said.code == 4, said
        assert "no new file can be made in /dev" in said.err
        assert len(world.files()) == 1

    def hurts(self, world: Rig) -> None:
        overlay = world.disk().layers[0].path
        assert overlay is not None
        assert type_of(overlay) in ("devtmpfs", "tmpfs")
