"""
The tool is killed half-way, or QEMU is: jobs, nodes and files stay, and are mended by hand.

abbbi/qmpbackup#31 and #29, lxc/incus#4054, OpenNebula/one#4653 and #5920.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.flushed import NOTHING
from qmpsnap.operations.step import Does
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.doors import at, patch
from tests.rig.jobs import ACTIVE, TOP, make_chain
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.waiting import until


def jobs(rig: Rig) -> list[str]:
    """States of the guest's jobs."""
    found = rig.guest.qmp("query-jobs")
    assert isinstance(found, list)
    return [job["status"] for job in found]


NODE = "qmpsnap-0-format"


class TestJobThatAKilledCallLeft(Pain[Rig]):
    """`kill -9` in the middle of a commit; then the same command again."""

    guard = Guard(where="qmpsnap.operations.merge.job_of", instead=lambda *_: None)

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        make_chain(share)
        files = [(share / ACTIVE, "qcow2"), (share / TOP, "qcow2"), (share / BASE, "raw")]
        with direct_rig(share, qcow2_chain(files, DISK, SERIAL)) as rig:
            self._begun_and_killed(rig)
            yield rig

    def _begun_and_killed(self, rig: Rig) -> None:
        slowly = [*rig.road, "delete", DISK, "s1", "--bandwidth", "1"]
        with subprocess.Popen([sys.executable, "-m", "qmpsnap", *slowly]) as tool:
            until(lambda: jobs(rig) == ["running"] or tool.poll() is not None)
            tool.kill()
        assert tool.returncode == -9

    def answered(self, world: Rig) -> None:
        said = world.cli("delete", DISK, "s1", "--bandwidth", "0")
        assert said.code == 0, said
        assert world.files() == [ACTIVE, BASE]
        assert jobs(world) == []

    def hurts(self, world: Rig) -> None:
        assert world.files() == [ACTIVE, TOP, BASE]
        assert jobs(world) == ["running"]  # and nobody ever ends it


class TestNodeThatAKilledCallLeft(Pain[Rig]):
    """`kill -9` between the opening of an overlay and the switch: QEMU holds its lock."""

    guard = Guard(where="qmpsnap.operations.clear._take", instead=lambda *_: None)

    @pytest.fixture
    def world(self, make_rig: MakeRig) -> Iterator[Rig]:
        with make_rig("raw") as rig:
            overlay = rig.folder / f"{BASE}.new"
            images.create_qcow2(overlay, rig.guest.virtual_size(DISK), BASE, "raw")
            node = {"driver": "qcow2", "node-name": NODE, "backing": None}
            file = {"driver": "file", "filename": str(overlay)}
            rig.guest.qmp("blockdev-add", {**node, "file": file})
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("create", DISK, "new")
        assert said.code == 0, said
        assert world.files() == [f"{BASE}.new", BASE]

    def hurts(self, world: Rig) -> None:
        assert world.files() == [BASE]
        nodes = world.guest.qmp("query-named-block-nodes", {"flat": True})
        assert isinstance(nodes, list)
        assert NODE in [node["node-name"] for node in nodes]  # and it keeps the file locked


class TestPullThatQemuDidNotLiveToWrite(Pain[Rig]):
    """QEMU is killed in the next moment: the header has no backing file any more, the data is lost."""

    guard = Guard(where="qmpsnap.operations.job.loop.taken", instead=lambda *_: NOTHING)

    @pytest.fixture
    def world(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
        with make_rig("raw", size=16 * MIB) as rig:
            patch(monkeypatch, QmpGuest, before=at(Does.DISMISS, lambda _step: rig.kill()))
            monkeypatch.setattr("qmpsnap.guests.qmp.guest.RECONNECT_S", 0.1)
            rig.guest.write(DISK, 0, 16 * MIB, 7)
            rig.create("s1")
            yield rig

    def answered(self, world: Rig) -> None:
        self.content = world.guest.read_sha256(DISK)
        said = world.cli("delete", DISK, "s1", "--method", "pull")
        assert said.code == 6, said  # it says that it does not know,
        assert self._on_disk(world) == self.content  # and nothing is lost

    def hurts(self, world: Rig) -> None:
        assert self._on_disk(world) != self.content

    def _on_disk(self, rig: Rig) -> str:
        return images.sha256_of(rig.folder / f"{BASE}.s1", "qcow2")
