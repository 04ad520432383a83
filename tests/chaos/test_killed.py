"""
QEMU is killed at a random moment of every operation.

Whoever then does what the report says finds all that was flushed; and each later write is there,
or is not, as after any crash. `QMPSNAP_CHAOS_FAULTS` sets how many moments there are of each.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations import merge, snapshot
from qmpsnap.operations.outcome import Result
from qmpsnap.operations.requests import CreateRequest
from tests.chaos import steps
from tests.chaos.conftest import GetRoad
from tests.chaos.killing import Doomed, KilledBefore, killed_on
from tests.chaos.model import Disk, read_file
from tests.chaos.operations import MERGES, OPERATIONS, Operation, a_disk
from tests.chaos.operator import obey
from tests.chaos.roads import Road, Running
from tests.chaos.scenario import Scenario, asked, recovered
from tests.rig.waiting import HANG_S

MOMENTS = int(os.environ.get("QMPSNAP_CHAOS_FAULTS", "1"))
STEPS = 14
"""More than any operation has of its host."""
OVERLAY = "volume-1.new"


def operate(host: Any, disk: Disk, step: Operation) -> Result | QmpsnapError:
    """Do it, and say how it ended."""
    try:
        if isinstance(step, steps.Create):
            request = CreateRequest(disk=disk.serial, new_file=OVERLAY, snapshot="new")
            return snapshot.create(host, request)
        return merge.delete(host, asked(disk, step))
    except QmpsnapError as error:
        return error


@contextmanager
def busy(running: Running, disk: Disk, chance: random.Random) -> Iterator[None]:
    """A guest that perhaps writes meanwhile; its export breaks when QEMU is killed."""
    stack, problem = ExitStack(), None
    try:
        with stack:
            if chance.random() < 0.6:
                writer = running.written_to(disk, seed=chance.randrange(1 << 30))
                stack.enter_context(writer).wait_for(3)
            try:
                yield
            except BaseException as error:
                problem = error
                raise
    except QmpsnapError:
        if problem is not None:
            raise problem from None


@pytest.mark.parametrize("moment", range(MOMENTS))
@pytest.mark.parametrize("kind", OPERATIONS)
@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_killed_at_a_random_moment(
    get_road: GetRoad, tmp_path: Path, road: str, kind: str, moment: int
) -> None:
    chance = random.Random(f"{road} {kind} {moment}")
    disk, step = a_disk(tmp_path, chance), OPERATIONS[kind]
    with get_road(road).start(tmp_path, [disk]) as running:
        with busy(running, disk, chance), running.rig.host() as host:
            doomed = Doomed(host, running, chance.randint(1, STEPS), chance.uniform(0, 0.005))
            said = operate(doomed, disk, step)
            doomed.see_it_die()
        running.rig.kill()
    goes_on(get_road(road), disk, step, said)


@pytest.mark.parametrize("kind", ["commit", "pull", "pull to a base"])
@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_killed_right_after_the_job_completed(
    get_road: GetRoad, tmp_path: Path, road: str, kind: str
) -> None:
    """Then an unflushed pull has lost what it copied; on the direct road it was flushed before."""
    chance = random.Random(f"{road} {kind}")
    disk, step = a_disk(tmp_path, chance), OPERATIONS[kind]
    with get_road(road).start(tmp_path, [disk]) as running:
        with running.rig.host() as host, killed_on(running, "BLOCK_JOB_COMPLETED") as killed:
            said = operate(host, disk, step)
            assert killed.wait(HANG_S)
        running.rig.kill()
    if road == "direct":
        assert disk.after_a_crash.explains(read_file(disk.path(disk.active.file), "qcow2"))
    goes_on(get_road(road), disk, step, said)


@pytest.mark.parametrize("kind", MERGES)
@pytest.mark.parametrize("road", ["direct", "libvirt"])
def test_killed_after_the_merge_was_seen_done(
    get_road: GetRoad, tmp_path: Path, road: str, kind: str
) -> None:
    """It is a success all the same."""
    chance = random.Random(f"{road} {kind}")
    disk, step = a_disk(tmp_path, chance), OPERATIONS[kind]
    with get_road(road).start(tmp_path, [disk]) as running, running.rig.host() as host:
        said = operate(KilledBefore(host, running, "neighbours", 2), disk, step)
    assert isinstance(said, Result), said
    goes_on(get_road(road), disk, step, said)


def goes_on(road: Road, disk: Disk, step: Operation, said: Result | QmpsnapError) -> None:
    """Do what the report says; the guest starts, has what it had, and can be operated on."""
    obey(disk, step, OVERLAY, said)
    recovered(disk)
    with Scenario(road, disk.folder, [disk]) as scenario:
        scenario.do(steps.Create(disk=0, form="people"))
        scenario.do(steps.Commit(disk=0, top=0, base=1, form="people"))
