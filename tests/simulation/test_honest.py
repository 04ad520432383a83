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
from collections.abc import Callable
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
BASE: Final = "volume"
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


def real_chain(rig: Rig) -> list[str]:
    """By `query-block`: `query-named-block-nodes` crashes QEMU 7.2 beside an ended stream."""
    blocks: Any = rig.guest.qmp("query-block")
    image = next(one["inserted"]["image"] for one in blocks if one.get("inserted"))
    found: list[str] = []
    while image is not None:
        found.append(bare(image["filename"]))
        image = image.get("backing-image")
    return found


def a_command(model: BlockLayer, chance: random.Random, number: int) -> Command:
    """One that may be right or wrong in the state that the model is in."""
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
            overlays = [one for one in model.nodes if one not in model.chain]
            overlay = (
                chance.choice(overlays) if overlays and chance.random() < 0.3 else f"n{number}"
            )
            below = model.chain[0] if chance.random() < 0.9 else chance.choice(nodes)
            data = {"node": below, "overlay": overlay}
            return "transaction", {"actions": [{"type": "blockdev-snapshot", "data": data}]}
        case "commit" | "stream":
            return a_start(model, chance, kind, f"job{number}")
        case "del":
            return "blockdev-del", {"node-name": chance.choice(nodes)}
        case _:
            return f"job-{kind}", {"id": job}


def a_start(model: BlockLayer, chance: random.Random, kind: str, job: str) -> Command:
    """A commit or a stream, as the product starts them, between layers that may stand the wrong way."""
    layers = [chance.choice(model.chain) for _ in range(2)]
    upper, lower = sorted(layers, key=model.chain.index)
    if chance.random() < 0.15:
        upper, lower = lower, upper
    given: dict[str, Any] = {"job-id": job, "auto-dismiss": False}
    header = os.path.basename(model.nodes[lower])
    if kind == "stream":
        given |= {"device": model.chain[0], "auto-finalize": False}
        if chance.random() < 0.7:
            given |= {"base-node": lower, "backing-file": header}
        return "block-stream", given
    is_active = upper == model.chain[0]
    given |= {"device": model.chain[0], "top-node": upper, "base-node": lower}
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
    images.create_raw(there / BASE, MIB)
    model = Quiet(here, chance, fails=False)
    model.make(str(here / BASE), "raw", None)
    model.start(str(here / BASE), ["vda-0-fmt"])
    done: list[str] = []
    with direct_rig(there, raw_disk(there / BASE, "vda", "1")) as rig:
        for step in range(COMMANDS):
            command, given = a_command(model, chance, step)
            if command == "transaction":
                opened(model, rig, given["actions"][0]["data"]["overlay"], there)
            both = (
                refused(lambda: model.execute(command, given)),  # noqa: B023
                refused(lambda: rig.guest.qmp(command, given)),  # noqa: B023
            )
            said = f"model: {both[0]!r}, QEMU: {both[1]!r}"
            done.append(f"{command} {given}: {said}; {model.chain}, {real_jobs(rig)}")
            model.settle()
            until(lambda: all(one in STILL for one, _ in real_jobs(rig).values()))
            if command == "job-complete" and not both[1]:
                until(lambda: real_jobs(rig)[given["id"]][0] == "concluded")  # noqa: B023
            assert bool(both[0]) == bool(both[1]), "\n".join(done)
            jobs = {one.id: (str(one.status), one.error is not None) for one in model.jobs.values()}
            assert real_jobs(rig) == jobs, "\n".join(done)
            chain = [os.path.basename(model.nodes[node]) for node in model.chain]
            assert real_chain(rig) == chain, "\n".join(done)


def opened(model: BlockLayer, rig: Rig, overlay: str, there: Path) -> None:
    """Open the overlay of a snapshot, unless it is open."""
    if overlay in model.nodes:
        return
    images.create_qcow2(there / overlay, MIB)
    model.make(str(model.folder / overlay), "qcow2", os.path.basename(model.nodes[model.chain[0]]))
    file: dict[str, Any] = {"driver": "file", "filename": str(there / overlay)}
    add = {"driver": "qcow2", "node-name": overlay, "backing": None, "file": file}
    rig.guest.qmp("blockdev-add", add)
    model.execute("blockdev-add", {**add, "file": {"filename": str(model.folder / overlay)}})
