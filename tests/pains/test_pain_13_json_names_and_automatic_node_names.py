"""
`json:` names and automatic node names.

abbbi/qmpbackup#12 and #24, twilligon/backup-vm#15. Here a guest whose layers have automatic nodes
(`#block123`), and `json:` names, for no other reason than a `./` in a header.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.guests.files.header import read_header
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.disks import DiskSpec
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import direct_rig

FILES = [f"{BASE}.s3", f"{BASE}.s2", f"{BASE}.s1", BASE]


def _by_qemus_own_names(*_: object) -> dict[str, object]:
    """QEMU knows what its files are called."""
    return {}


class TestJsonNamesAndAutomaticNodeNames(Pain[Rig]):
    guard = Guard(
        where="qmpsnap.guests.qmp.steps.QmpComposer._backing", instead=_by_qemus_own_names
    )

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        def file(name: str) -> dict[str, object]:
            return {"driver": "file", "filename": str(share / name)}

        images.create_raw(share / BASE, MIB)
        node: dict[str, object] = {"driver": "raw", "file": file(BASE)}
        below = f"./{BASE}", "raw"
        for name in reversed(FILES[:-1]):
            images.create_qcow2(share / name, MIB, *below)
            node = {"driver": "qcow2", "file": file(name), "backing": node}
            below = name, "qcow2"
        disk = DiskSpec(
            blockdevs=({**node, "node-name": "root"},), root="root", id=DISK, serial=SERIAL
        )
        with direct_rig(share, disk) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("chain", "-o", "json").json["disks"][0]["layers"]
        assert [layer["file"] for layer in said] == FILES
        assert all(layer["node"].startswith("#block") for layer in said[1:])
        assert world.delete(FILES[1], FILES[2]).code == 0
        assert world.files() == [FILES[0], *FILES[2:]]
        header = read_header(str(world.folder / FILES[0]))
        assert (header.backing_file, header.backing_format) == (FILES[2], "qcow2")

    def hurts(self, world: Rig) -> None:
        assert world.files() == [FILES[0], *FILES[2:]]
        name = read_header(str(world.folder / FILES[0])).backing_file
        assert name is not None
        assert name.startswith("json:")  # with absolute names in it, which libvirt 9.0 cannot read
        assert str(world.folder) in name
