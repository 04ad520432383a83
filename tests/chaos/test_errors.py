"""
The storage fails under an operation: no room left at a random byte, an error at a random write.

It is never a success with something lost, and never a failure with something changed: the guest
reads what it read, and once the cause is mended the same command goes through.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum
from pathlib import Path

import pytest

from qmpsnap.guests.files import qemu_img
from tests.chaos import model, steps
from tests.chaos.conftest import GetRoad
from tests.chaos.model import Disk
from tests.chaos.operations import MERGES, OPERATIONS, Operation, a_disk
from tests.chaos.roads import DirectRoad, described
from tests.chaos.scenario import Scenario, note_merge
from tests.rig.disks import DiskSpec
from tests.rig.jobs import small_file_system
from tests.rig.rig import MIB, Said

FAULTS = int(os.environ.get("QMPSNAP_CHAOS_FAULTS", "1"))
PAGE = 4096
ROOM = 32 * MIB
WRITES = 12
"""More than any of these merges makes into the file that it writes."""


def fill(folder: Path, left: int) -> Path:
    """Leave `left` bytes, rounded to pages; returns the file that takes the rest."""
    status = os.statvfs(folder)
    taken = status.f_bavail * status.f_frsize - left
    filler = folder / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, taken))
    return filler


def operate(scenario: Scenario, disk: Disk, step: Operation) -> tuple[Said, str]:
    """Give the command, whatever room there may be."""
    if isinstance(step, steps.Create):
        return scenario.create(disk, step)
    return scenario.merge(disk, step, "--force"), ""


class Ended(Enum):
    """How an operation has ended, by its report."""

    DONE = "done"
    FAILED = "failed"
    """The chain is as it was."""
    HELD = "held"
    """The chain has changed, and is not safe on disk: files that left it must be kept."""


def judged(disk: Disk, step: Operation, said: Said, overlay: str, words: str) -> Ended:
    """Take the report for true, and change the model to what it says."""
    creates = isinstance(step, steps.Create)
    if said.code == 0:
        assert said.status["status"] == f"{'creating' if creates else 'deleting'}_compute_complete"
        if isinstance(step, steps.Create):
            disk.put_on(overlay)
        else:
            for file in note_merge(disk, step):
                disk.path(file).unlink()
        return Ended.DONE
    assert said.status == {"status": "error" if creates else "error_deleting", "progress": "0%"}
    assert words in said.err or "would not flush it" in said.err, said
    if isinstance(step, steps.Create):
        assert said.code == 1, said
        assert not disk.path(overlay).exists()
        return Ended.FAILED
    if isinstance(step, steps.Commit):
        disk.spoiled(step.top, step.base)
    if said.code == 5:
        return Ended.FAILED
    assert said.code == 1, said
    assert "Keep the files that left" in said.err or "Remove no file" in said.err
    return Ended.HELD


def put_back(scenario: Scenario, disk: Disk, step: Operation) -> None:
    """QEMU is killed while a merge is not on disk: the old backing file is named again."""
    assert isinstance(step, steps.Commit | steps.Pull)
    above = step.top - 1 if isinstance(step, steps.Commit) else 0
    with scenario.stopped():
        overlay, below = disk.layers[above : above + 2]
        path = str(disk.path(overlay.file))
        backing = ("-b", below.file, "-F", below.format)
        qemu_img.run("rebase", path, "-u", "-f", overlay.format, *backing, path)


def go_on(scenario: Scenario, disk: Disk, step: Operation, ended: Ended) -> None:
    """The cause is mended: what was not done is done by the same command."""
    if ended is Ended.HELD:
        put_back(scenario, disk, step)
        # Until then the marker forbids every other operation.
        settled = scenario.running.rig.cli("resume")
        assert settled.code == 0, settled
    scenario.compare()
    if ended is not Ended.DONE:
        said, overlay = operate(scenario, disk, step)
        assert judged(disk, step, said, overlay, "") is Ended.DONE, said
        scenario.compare()
    scenario.finish()


@pytest.mark.parametrize("fault", range(FAULTS))
@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_no_room_at_a_random_byte(
    get_road: GetRoad, tmp_path: Path, road: str, kind: str, fault: int
) -> None:
    chance = random.Random(f"{road} {kind} {fault}")
    share = tmp_path / "share"
    share.mkdir()
    with small_file_system(share, ROOM // MIB):
        disk, step = a_disk(share, chance), OPERATIONS[kind]
        room = chance.randrange(0, (48 if kind == "create" else 512) * 1024, PAGE)
        with Scenario(get_road(road), tmp_path, [disk]) as scenario:
            filler = fill(share, room)
            said, overlay = operate(scenario, disk, step)
            ended = judged(disk, step, said, overlay, "No space left on device")
            filler.unlink()
            go_on(scenario, disk, step, ended)


class Failing:
    """Describes a disk whose n-th write or flush of one file fails."""

    def __init__(self, file: str, what: str, at: int, error: int) -> None:
        self._file = file
        self._what = what
        self._at = at
        self._error = error
        self.armed = True

    def __call__(self, disk: Disk) -> DiskSpec:
        """
        The disk, with `blkdebug` over the file for as long as it is armed.

        Source: docs/devel/blkdebug.txt. Each write takes it one state further; a full file system
        stays full.
        """
        spec = described(disk)
        if not self.armed:
            return spec
        on = {"event": "pwritev" if self._what == "write" else "flush_to_disk"}
        failing = {
            **on,
            "iotype": self._what,
            "state": self._at,
            "errno": self._error,
            "once": self._error != errno.ENOSPC,
        }
        rules: dict[str, object] = {"inject-error": [failing]}
        if self._at > 1:
            counting = [{**on, "state": n, "new_state": n + 1} for n in range(1, self._at)]
            rules["set-state"] = counting

        def wrapped(blockdev: Mapping[str, object]) -> Mapping[str, object]:
            if blockdev.get("filename") != str(disk.path(self._file)):
                return blockdev
            return {
                "driver": "blkdebug",
                "node-name": blockdev["node-name"],
                "image": {"driver": "file", "filename": blockdev["filename"]},
                **rules,
            }

        return replace(spec, blockdevs=tuple(wrapped(one) for one in spec.blockdevs))


@pytest.mark.parametrize("fault", range(FAULTS))
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("kind", MERGES)
def test_error_at_a_random_write(tmp_path: Path, kind: str, error: int, fault: int) -> None:
    """Nothing of libvirt puts an error into a chain, so this is the direct road only."""
    chance = random.Random(f"{kind} {error} {fault}")
    _fails(tmp_path, chance, OPERATIONS[kind], "write", chance.randint(1, WRITES), error)


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("kind", MERGES)
def test_error_at_a_flush(tmp_path: Path, kind: str, at: int) -> None:
    _fails(tmp_path, random.Random(f"{kind} {at}"), OPERATIONS[kind], "flush", at, errno.EIO)


def _fails(
    folder: Path, chance: random.Random, step: Operation, what: str, at: int, error: int
) -> None:
    disk = a_disk(folder, chance)
    assert isinstance(step, steps.Commit | steps.Pull)
    written = step.base if isinstance(step, steps.Commit) else 0
    assert written is not None
    failing = Failing(disk.files[written], what, at, error)
    with Scenario(DirectRoad(failing), folder, [disk]) as scenario:
        failing.armed = False
        said, overlay = operate(scenario, disk, step)
        ended = judged(disk, step, said, overlay, os.strerror(error))
        if ended is Ended.FAILED and error == errno.ENOSPC:
            scenario.do(steps.Restart(disk=0))  # on a disk that has room
        go_on(scenario, disk, step, ended)


def test_no_room_for_the_tables_of_the_base(tmp_path: Path) -> None:
    """
    Found by chance: data fits, and the tables that say where it is do not.

    They are written last, when the base is flushed. QEMU's job does not say that this fails, and
    the base was reported as complete; after a crash all that was committed was gone.
    """
    step = steps.Commit(disk=0, top=1, base=2)
    for at in range(16, 0, -1):
        folder = tmp_path / str(at)
        folder.mkdir()
        disk = model.build(folder, 0, depth=3, base="qcow2", size=MIB, chance=random.Random(1))
        failing = Failing(disk.files[2], "write", at, errno.ENOSPC)
        with Scenario(DirectRoad(failing), folder, [disk]) as scenario:
            failing.armed = False
            said, _ = operate(scenario, disk, step)
            if said.code == 0:
                continue
            assert (said.code, "could not be flushed: Error flushing drive" in said.err) == (
                5,
                True,
            )
            ended = judged(disk, step, said, "", "No space left on device")
            scenario.do(steps.Restart(disk=0))  # on a disk that has room
            go_on(scenario, disk, step, ended)
            return
    raise AssertionError("no write of the base has failed")
