"""
Several disks, not as one: one disk has the snapshot and the other has not.

OpenNebula/one#5523, abbbi/qmpbackup#5, apache/cloudstack#9524.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from msgspec.structs import replace

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.step import Does, Step
from tests.pains.pain import Guard, Pain
from tests.rig import images, qemu_machine
from tests.rig.disks import raw_disk
from tests.rig.jobs import copy_begins
from tests.rig.qemu_machine import QemuMachine
from tests.rig.rig import MIB, Said, run_cli

_TAKE = QmpGuest.take


@dataclass
class TwoDisks:
    """A guest with the disks vda and vdb; no snapshot can be taken of the second one."""

    guest: QemuMachine
    folder: Path

    def cli(self, command: str, *arguments: str) -> Said:
        """Run the command line in this process."""
        return run_cli(["--qmp", self.guest.qmp_path, command, *arguments])

    def chains(self) -> list[list[str]]:
        """Files of each disk, active layer first."""
        disks = self.cli("chain", "-o", "json").json["disks"]
        return [[layer["file"] for layer in disk["layers"]] for disk in disks]


def _one_after_the_other(guest: QmpGuest, step: Step) -> object:
    if step.does is not Does.SWITCH:
        return _TAKE(guest, step)
    for action in cast(list[object], step.arguments["actions"]):
        _TAKE(guest, replace(step, arguments={"actions": [action]}))
    return None


class TestSeveralDisksNotAsOne(Pain[TwoDisks]):
    guard = Guard(where="qmpsnap.guests.qmp.guest.QmpGuest.take", instead=_one_after_the_other)

    @pytest.fixture
    def world(self, share: Path, copy_begins_unseen: None) -> Iterator[TwoDisks]:
        for name in ("volume-a", "volume-b"):
            images.create_raw(share / name, MIB)
        disks = [raw_disk(share / "volume-a", "vda"), raw_disk(share / "volume-b", "vdb")]
        with qemu_machine.run(disks, directory=share) as guest:
            copy_begins(guest, "vdb")
            yield TwoDisks(guest, share)

    def answered(self, world: TwoDisks) -> None:
        said = world.cli("create", "vda", "s1", "--also", "vdb")
        assert said.code == 1, said
        assert "busy" in said.err
        assert world.chains() == [["volume-a"], ["volume-b"]]
        assert not list(world.folder.glob("*.s1"))

    def hurts(self, world: TwoDisks) -> None:
        assert world.chains() == [["volume-a.s1", "volume-a"], ["volume-b"]]
