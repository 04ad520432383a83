"""
Bitmaps lost: the next incremental backup fails, or misses what has changed.

abbbi/virtnbdbackup#225, #266 and #145, OpenNebula/one#7092.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pains.pain import Guard, Pain
from tests.rig.rig import BASE, DISK, Rig
from tests.rig.roads import MakeRig


class TestBitmapsLost(Pain[Rig]):
    guard = Guard(where="qmpsnap.operations.guards._lost_bitmaps", instead=lambda *_: [])

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("qcow2") as rig:
            rig.grow(2)
            node = rig.guest.active_node(DISK)
            bitmap = {"node": node, "name": "daily", "persistent": True}
            rig.guest.qmp("block-dirty-bitmap-add", bitmap)
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, "s1")
        assert said.code == 4, said
        assert "dirty bitmaps (daily)" in said.err
        assert self._bitmaps(world) == ["daily"]

    def hurts(self, world: Rig) -> None:
        assert world.files() == [BASE]
        assert self._bitmaps(world) == []

    def _bitmaps(self, rig: Rig) -> list[str]:
        nodes = rig.guest.qmp("query-named-block-nodes", {"flat": True})
        assert isinstance(nodes, list)
        return [one["name"] for node in nodes for one in node.get("dirty-bitmaps", ())]
