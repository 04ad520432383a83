"""
Failed merge taken for success: the job has vanished, so the file is removed.

lxc/incus#3654, apache/cloudstack#13914; a comment in Nova's guest.py says that it cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files.qemu_img import QemuImgFailed
from qmpsnap.operations.flushed import FLUSHED
from qmpsnap.operations.guards import Surroundings
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.plan_merge import MergePlan
from tests.pains.pain import Guard, Pain
from tests.rig import flushes, images
from tests.rig.jobs import ACTIVE, TOP, failing_disk, make_chain
from tests.rig.rig import BASE, DISK, SIZE, Rig
from tests.rig.roads import direct_rig

NO_SPACE = 28
"""ENOSPC; that is what writes to the base fail with."""


def _believe_that_it_was_done(plan: MergePlan, *_: Any, **_more: Any) -> Result:
    """The job is over, so it has done what it was started for."""
    formats = {layer.file: layer.format for layer in plan.reported}
    dropped = tuple(layer.path for layer in plan.dropped)
    return Result(disk=plan.disk, file_format=formats, dropped=dropped)


class TestFailedMergeTakenForSuccess(Pain[Rig]):
    guard = Guard(where="qmpsnap.operations.merge.judged", instead=_believe_that_it_was_done)
    others = (
        Guard(
            where="qmpsnap.operations.merge.ensured", instead=lambda _guest, after, *_: (after, ())
        ),
        Guard(
            where="qmpsnap.guests.qmp.guest.around",
            instead=lambda *_, **_more: Surroundings(),
        ),
        Guard(where="qmpsnap.guests.files.door.images_naming", instead=lambda _path: ()),
    )

    @pytest.fixture
    def world(self, share: Path) -> Iterator[Rig]:
        make_chain(share, SIZE)
        with direct_rig(share, failing_disk(share, BASE, NO_SPACE)) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        content = world.guest.read_sha256(DISK)
        said = world.cli("delete", DISK, "s1", "--remove-file")
        assert said.code == 5, said
        assert "No space left on device" in said.err
        assert "The chain is as it was" in said.err
        assert world.files() == [ACTIVE, TOP, BASE]
        world.kill()
        assert images.sha256_of(world.folder / ACTIVE, "qcow2") == content

    def hurts(self, world: Rig) -> None:
        assert world.files() == [ACTIVE, TOP, BASE]  # nothing was merged,
        assert not (world.folder / TOP).exists()  # and the one file that has the data is gone
        world.kill()
        with pytest.raises(QemuImgFailed, match="No such file"):
            images.sha256_of(world.folder / ACTIVE, "qcow2")


class TestFlushThatFailed(Pain[Rig]):
    """QEMU ends the job without an error, and what it has copied is in its memory."""

    guard = Guard(where="qmpsnap.operations.flushed.evidence", instead=lambda *_: FLUSHED)

    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[Rig]:
        folder = tmp_path / "volumes"
        flushes.make_chain(folder, "qcow2")
        with direct_rig(folder, flushes.disk(folder, "qcow2", [flushes.TABLES])) as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        content = world.guest.read_sha256(DISK)
        said = world.cli("delete", DISK, "s1", "--method", "commit", "--remove-file")
        assert said.code == 5, said
        assert "could not be flushed" in said.err
        world.kill()
        assert images.sha256_of(world.folder / ACTIVE, "qcow2") == content

    def hurts(self, world: Rig) -> None:
        content = world.guest.read_sha256(DISK)  # all is there while QEMU runs,
        assert not (world.folder / TOP).exists()
        world.kill()  # and not on disk, whose header names the base
        assert images.sha256_of(world.folder / ACTIVE, "qcow2") != content
