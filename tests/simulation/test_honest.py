"""
The model beside a real QEMU: the same commands have the same effect on both.

Random commands, right and wrong ones. After each, once no job moves by itself, the chain, the states
of all jobs and whether the command was refused are the same. `QMPSNAP_SIMULATION_SEQUENCES` sets how
many sequences there are: 20, and 500 at night.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from qmpsnap.monitor.base import CommandFailed
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.rig import MIB, Rig
from tests.rig.roads import direct_rig
from tests.rig.waiting import until
from tests.simulation.block_layer import BlockLayer
from tests.simulation.seed import SEED, SEQUENCES

COMMANDS: Final = 12
DISKS: Final = ("vda", "vdb")
STILL: Final = frozenset({"ready", "pending", "concluded"})
Command = tuple[str, dict[str, Any]]


class Quiet(BlockLayer):
    """The model, in which nothing happens by chance."""

    def settle(self) -> None:
        """Every job goes on as far as it does by itself."""
        for job in self.jobs.values():
            while job.status == "running" or (job.completes and job.status == "ready"):
                self._go_on(job)


def refused(send: Callable[[], object]) -> str:
    """Why a command was refused; empty: it was not."""
    try:
        send()
    except CommandFailed as error:
        return error.description
    return ""


def real_jobs(rig: Rig) -> dict[str, tuple[str, bool]]:
    found: Any = rig.guest.qmp("query-jobs")
    return {one["id"]: (one["status"], "error" in one) for one in found}


def bare(name: str) -> str:
    """Of a layer that is opened as its header does not say, QEMU tells the options."""
    if name.startswith("json:"):
        name = json.loads(name.removeprefix("json:"))["file"]["filename"]
    return os.path.basename(name)


def real_chains(rig: Rig) -> list[list[str]]:
    """By `query-block`: `query-named-block-nodes` crashes QEMU 7.2 beside an ended stream."""
    blocks: Any = rig.guest.qmp("query-block")
    return [list(_names(one["inserted"]["image"])) for one in blocks if one.get("inserted")]


def _names(image: Any) -> Iterator[str]:
    while image is not None:
        yield bare(image["filename"])
        image = image.get("backing-image")


def a_command(model: BlockLayer, chance: random.Random, number: int) -> Command:
    """One that may be right or wrong in the state that the model is in."""
    disk = chance.choice(list(model.chains))
    nodes = [*model.nodes, "nosuch"]
    jobs = [*model.jobs, "nosuch"]
    kind = chance.choice(
        [
            "snapshot",
            "snapshot",
            "commit",
            "stream",
            "finalize",
            "complete",
            "cancel",
            "dismiss",
            "del",
        ]
    )
    wanted = {"finalize": "pending", "complete": "ready", "dismiss": "concluded"}.get(kind)
    fitting = [job.id for job in model.jobs.values() if wanted in (None, job.status)]
    job = chance.choice(fitting) if fitting and chance.random() < 0.8 else chance.choice(jobs)
    match kind:
        case "snapshot":
            return "transaction", {"actions": a_group(model, chance, number)}
        case "commit" | "stream":
            return a_start(model, chance, kind, f"job{number}", model.chains[disk])
        case "del":
            return "blockdev-del", {"node-name": chance.choice(nodes)}
        case _:
            return f"job-{kind}", {"id": job}


def a_group(model: BlockLayer, chance: random.Random, number: int) -> list[dict[str, Any]]:
    """The snapshots of one transaction: of any disks, one of them twice now and then."""
    actions = []
    for at in range(chance.choice([1, 1, 1, 2, 2, 3])):
        overlays = [one for one in model.nodes if one not in model.in_chains]
        overlay = f"n{number}-{at}"
        if overlays and chance.random() < 0.2:
            overlay = chance.choice(overlays)
        below = chance.choice([chain[0] for chain in model.chains.values()])
        if chance.random() < 0.1:  # not of a node that no disk has: the product never does that
            below = chance.choice([*model.in_chains, *model.below.values(), "nosuch"])
        data = {"node": below, "overlay": overlay}
        actions.append({"type": "blockdev-snapshot", "data": data})
    return actions


def a_start(
    model: BlockLayer, chance: random.Random, kind: str, job: str, chain: list[str]
) -> Command:
    """A commit or a stream, as the product starts them, between layers that may stand the wrong way."""
    layers = [chance.choice(chain) for _ in range(2)]
    upper, lower = sorted(layers, key=chain.index)
    if chance.random() < 0.15:
        upper, lower = lower, upper
    if chance.random() < 0.1:
        lower = chance.choice(model.in_chains)
    given: dict[str, Any] = {"job-id": job, "auto-dismiss": False}
    header = os.path.basename(model.nodes[lower])
    if kind == "stream":
        given |= {"device": chain[0], "auto-finalize": False}
        if chance.random() < 0.7:
            given |= {"base-node": lower, "backing-file": header}
        return "block-stream", given
    is_active = upper == chain[0]
    given |= {"device": chain[0], "top-node": upper, "base-node": lower}
    if not is_active:
        given["backing-file"] = header
    return "block-commit", {**given, "auto-finalize": is_active}


@pytest.mark.qemu
@pytest.mark.parametrize("number", range(SEQUENCES))
def test_same_commands_have_the_same_effect(tmp_path: Path, number: int) -> None:
    chance = random.Random(f"{SEED} {number}")
    here, there = tmp_path / "model", tmp_path / "real"
    here.mkdir()
    there.mkdir()
    model = Quiet(here, chance, fails=False)
    for disk in DISKS:
        images.create_raw(there / disk, MIB)
        model.make(str(here / disk), "raw", None)
    model.start(
        {disk: str(here / disk) for disk in DISKS}, {disk: [f"{disk}-0-fmt"] for disk in DISKS}
    )
    done: list[str] = []
    with direct_rig(there, [raw_disk(there / disk, disk, disk) for disk in DISKS]) as rig:
        for step in range(COMMANDS):
            command, given = a_command(model, chance, step)
            if command == "transaction":
                for action in given["actions"]:
                    opened(model, rig, action["data"]["overlay"], there)
            both = (
                refused(lambda: model.execute(command, given)),  # noqa: B023
                refused(lambda: rig.guest.qmp(command, given)),  # noqa: B023
            )
            said = f"model: {both[0]!r}, QEMU: {both[1]!r}"
            done.append(f"{command} {given}: {said}; {model.chains}, {real_jobs(rig)}")
            model.settle()
            until(lambda: all(one in STILL for one, _ in real_jobs(rig).values()))
            if command == "job-complete" and not both[1]:
                until(lambda: real_jobs(rig)[given["id"]][0] == "concluded")  # noqa: B023
            assert bool(both[0]) == bool(both[1]), "\n".join(done)
            jobs = {one.id: (str(one.status), one.error is not None) for one in model.jobs.values()}
            assert real_jobs(rig) == jobs, "\n".join(done)
            chains = [
                [os.path.basename(model.nodes[node]) for node in chain]
                for chain in model.chains.values()
            ]
            assert real_chains(rig) == chains, "\n".join(done)


def opened(model: BlockLayer, rig: Rig, overlay: str, there: Path) -> None:
    """Open the overlay of a snapshot, unless it is open."""
    if overlay in model.nodes:
        return
    images.create_qcow2(there / overlay, MIB)
    model.make(str(model.folder / overlay), "qcow2", DISKS[0])
    file: dict[str, Any] = {"driver": "file", "filename": str(there / overlay)}
    add = {"driver": "qcow2", "node-name": overlay, "backing": None, "file": file}
    rig.guest.qmp("blockdev-add", add)
    model.execute("blockdev-add", {**add, "file": {"filename": str(model.folder / overlay)}})
