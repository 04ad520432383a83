"""
Wrong or missing format of a base: the guest is dead, unreadable, or reads what is not its own.

aruhier/virt-backup#44, Cinder's bugs 1989514 and 2103742, CVE-2026-24708.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import libvirt
import pytest
from lxml import etree

from qmpsnap.guests.files.header import read_header
from qmpsnap.guests.offline.definition import Edit
from qmpsnap.operations.guest import Overlay
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.defined import Defined, defined
from tests.rig.headers import hand_over, masks
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig
from tests.rig.roads import MakeRig

NEW = f"{BASE}.new"
SECRET = b"somebody else's\n"


def _what_the_next_start_reads(rig: Rig, file: str) -> bytes:
    """End the guest, and read its disk as the headers say."""
    rig.guest.qemu_io(DISK, "flush")
    rig.kill()
    with images.raw_copy(str(rig.folder / file), "qcow2", rig.folder) as copy:
        return copy.read_bytes()


class TestFormatThatTheVolumeServiceGuessed(Pain[Rig]):
    """It looked into a raw file, where the guest had written an image header."""

    guard = Guard(
        where="qmpsnap.guests.files.looks.look_at_overlay",
        instead=lambda _plan: Overlay(is_there=True),
    )
    others = (
        Guard(where="qmpsnap.operations.snapshot.check_all_opened", instead=lambda *_: None),
        Guard(
            where="qmpsnap.operations.snapshot.ensured",
            instead=lambda _host, after, *_: (after, ()),
        ),
    )

    @pytest.fixture
    def world(self, make_rig: MakeRig, tmp_path: Path) -> Iterator[Rig]:
        secret = tmp_path / "secret"
        secret.write_bytes(SECRET * (SIZE // len(SECRET)))
        header = images.foreign_qcow2_header(SIZE, backing=bytes(secret), data_file=None)
        with make_rig("raw") as rig:
            rig.guest.write_bytes(DISK, 0, header)
            hand_over(rig.folder / NEW, BASE, "qcow2")
            yield rig

    def answered(self, world: Rig) -> None:
        content = world.guest.read_all(DISK)
        info = {"type": "qcow2", "new_file": NEW, "snapshot_id": "new"}
        said = world.cli("volume-snapshot-create", SERIAL, json.dumps(info))
        assert said.code == 0, said
        assert "backing format qcow2 -> raw" in said.err
        assert _what_the_next_start_reads(world, NEW) == content

    def hurts(self, world: Rig) -> None:
        assert world.files() == [NEW, BASE]
        assert read_header(str(world.folder / NEW)).backing_format == "qcow2"
        assert _what_the_next_start_reads(world, NEW).startswith(SECRET)


class TestProtocolForAFormat(Pain[Rig]):
    """QEMU before 9.0 records `file`, which libvirt 9.0 takes for a licence to probe."""

    guard = Guard(where="qmpsnap.guests.qmp.steps._check_recordable", instead=lambda _base: None)

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("raw-without-node") as rig:
            if masks(rig, "block-commit"):
                pytest.skip("this QEMU has backing-mask-protocol")
            rig.grow(3)
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.delete(f"{BASE}.s1", BASE)
        assert said.code == 4, said
        assert world.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
        assert read_header(str(world.folder / f"{BASE}.s1")).backing_format == "raw"

    def hurts(self, world: Rig) -> None:
        assert world.files() == [f"{BASE}.s2", BASE]
        assert read_header(str(world.folder / f"{BASE}.s2")).backing_format == "file"


def _only_the_file(definition: str, edits: Mapping[str, Edit]) -> str:
    """The disk is another file now; that its format is another one too is not thought of."""
    root = etree.fromstring(definition.encode())
    for source in root.iterfind("./devices/disk/source"):
        source.set("file", edits[DISK].new[0].path)
    return etree.tostring(root, encoding="unicode")


class TestFormatInTheDefinition(Pain[Defined]):
    """A qcow2 overlay was committed into its raw base, and the definition still says qcow2."""

    guard = Guard(where="qmpsnap.guests.offline.definition.edited", instead=_only_the_file)

    @pytest.fixture
    def world(self, connection: Any, share: Path, borrowed: None) -> Iterator[Defined]:
        images.create_raw(share / BASE, MIB)
        images.create_qcow2(share / NEW, MIB, BASE, "raw")
        with defined(connection, share / NEW, "qcow2") as guest:
            yield guest

    def answered(self, world: Defined) -> None:
        said = world.cli("delete", DISK, "new", "-o", "json")
        assert said.code == 0, said
        assert said.json["file_format"] == {BASE: "raw"}
        world.start()
        assert world.active_file() == str(world.folder / BASE)

    def hurts(self, world: Defined) -> None:
        with pytest.raises(libvirt.libvirtError, match="not in qcow2 format"):
            world.start()
