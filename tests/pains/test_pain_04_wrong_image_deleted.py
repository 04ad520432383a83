"""
Data lost by deleting the wrong image, or by mixing kinds of snapshots.

virt-manager#811 and #862, lxc/incus#4030, dguerri/LibVirtKvm-scripts#27 ("Deletes everything,
including the actual image").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from qmpsnap.guests.files.qemu_img import QemuImgFailed
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.guards import read_by_another_process, resize
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig
from tests.rig.roads import MakeRig, direct_rig


class TestBaseThatSomebodyElseReads(Pain[Rig]):
    """A backup, or another volume, sees its own past change."""

    guard = Guard(
        where="qmpsnap.operations.guards._harm_to_readers", instead=lambda _plan, _around: []
    )

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("raw") as rig:
            rig.grow(3)
            with read_by_another_process(rig.folder / BASE, "raw"):
                yield rig

    def answered(self, world: Rig) -> None:
        self.before = self._reader_sees(world)
        said = world.delete(f"{BASE}.s1", BASE)
        assert said.code == 4, said
        assert "qemu-nbd" in said.err
        assert self._reader_sees(world) == self.before

    def hurts(self, world: Rig) -> None:
        assert self._reader_sees(world) != self.before

    def _reader_sees(self, rig: Rig) -> str:
        url = f"nbd+unix:///?socket={quote(f'{rig.folder / BASE}.nbd')}"
        with images.raw_copy(url, "raw", rig.folder) as copy:
            return images.sha256_of_bytes(copy)


class TestInternalSnapshotInAnOverlay(Pain[Rig]):
    """Both kinds in one file: the internal one goes with it."""

    guard = Guard(where="qmpsnap.operations.guards._lost_snapshots", instead=lambda _layer: [])

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("raw") as rig:
            rig.grow(2)
            node = rig.guest.active_node(DISK)
            rig.guest.qmp("blockdev-snapshot-internal-sync", {"device": node, "name": "before"})
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, "s1", "--remove-file")
        assert said.code == 4, said
        assert "internal snapshots (before)" in said.err
        assert (world.folder / f"{BASE}.s1").exists()

    def hurts(self, world: Rig) -> None:
        assert world.files() == [BASE]  # raw: it holds no snapshot
        assert not (world.folder / f"{BASE}.s1").exists()


class TestTemplateOfManyVolumes(Pain[Rig]):
    """It is used by this guest no longer; by the other volumes it is."""

    guard = Guard(where="qmpsnap.operations.removal.is_own", instead=lambda _plan, _layer: True)

    @pytest.fixture
    def world(self, share: Path, tmp_path: Path) -> Iterator[Rig]:
        template = tmp_path / "template"
        images.create_raw(template, MIB)
        for volume in (BASE, "another-volume"):
            images.create_qcow2(share / volume, MIB, template, "raw")
        chain = qcow2_chain([(share / BASE, "qcow2"), (template, "raw")], DISK, SERIAL)
        with direct_rig(share, chain) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, BASE, "--method", "pull", "--remove-file")
        assert said.code == 0, said
        assert f"was not removed: it is not in {world.folder}" in said.err
        assert images.sha256_of(world.folder / "another-volume", "qcow2")

    def hurts(self, world: Rig) -> None:
        with pytest.raises(QemuImgFailed, match="No such file"):
            images.sha256_of(world.folder / "another-volume", "qcow2")


class TestWhatAShorterLayerHides(Pain[Rig]):
    """The disk was made smaller, and larger again after the next snapshot: it reads zeros there."""

    guard = Guard(where="qmpsnap.operations.plan_merge.check_lengths", instead=lambda *_: None)

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("raw") as rig:
            rig.guest.write(DISK, 0, SIZE, 7)
            for snapshot, size in (("s1", MIB), ("s2", SIZE)):
                rig.create(snapshot)
                resize(rig, size)
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, "s1")
        assert said.code == 4, said
        assert f"{BASE}.s1 ends at {MIB} bytes" in said.err
        assert world.guest.read_all(DISK)[MIB:] == bytes(SIZE - MIB)

    def hurts(self, world: Rig) -> None:
        assert world.guest.read_all(DISK)[MIB:] == bytes([7]) * (SIZE - MIB)
