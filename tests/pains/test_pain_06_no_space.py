"""
No space in the middle of a merge: the guest stops, the volumes are "illegal".

oVirt/vdsm#352, lxc/incus#2693. Pausing there and going on is in tests/live/only_qmp/test_jobs.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pains.pain import Guard, Pain
from tests.rig.disks import qcow2_chain
from tests.rig.jobs import ACTIVE, TOP, fill, make_chain, small_file_system
from tests.rig.machine import GuestWriteError
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import direct_rig


class TestNoSpace(Pain[Rig]):
    """A merge that cannot end takes the last bytes, which the guest needs."""

    guard = Guard(where="qmpsnap.operations.guards._no_room", instead=lambda _plan, _around: [])

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        small = share / "small"
        small.mkdir()
        with small_file_system(small, 64):
            make_chain(small)
            files = [(small / ACTIVE, "qcow2"), (small / TOP, "qcow2"), (small / BASE, "raw")]
            with direct_rig(share, qcow2_chain(files, DISK, SERIAL)) as rig:
                fill(small, 4 * MIB)
                yield rig

    def answered(self, world: Rig) -> None:
        said = world.delete(TOP, BASE)
        assert said.code == 4, said
        assert "its file system has" in said.err
        world.guest.write(DISK, 0, MIB, 9)

    def hurts(self, world: Rig) -> None:
        assert world.files() == [ACTIVE, TOP, BASE]
        with pytest.raises(GuestWriteError, match="No space left on device"):
            world.guest.write(DISK, 0, MIB, 9)
