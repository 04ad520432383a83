"""What happens to an operation, and to a guest before it is settled."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from qmpsnap.monitor.base import CommandFailed
from qmpsnap.operations.step import Does, Step
from tests.rig.doors import Killed
from tests.simulation.block_layer import BlockLayer
from tests.simulation.guest import (
    SimulatedGuest,
)
from tests.simulation.values import FOREIGN

What = Literal["nothing", "tool", "qemu", "both", "reply"]
Then = Literal[
    "", "right", "stale", "written", "elsewhere", "no journal", "plugged", "plugged stale"
]


@dataclass(frozen=True)
class Fate:
    """What happens to a call at its n-th act."""

    what: What = "nothing"
    number: int = 0
    when: Literal["before", "after"] = "before"


@dataclass(frozen=True)
class Call:
    """One operation, and what happens to it."""

    fate: Fate = Fate()
    rival: bool = False
    """Whether somebody else is at work on the guest."""
    back: bool = False
    """Whether disks go back to a snapshot, with the guest off."""
    then: Then = ""
    """
    What happens before it is settled. The guest, whose QEMU has died, was started by somebody: from
    files that have all data; from a stale one, and has only read; from a stale one, and has written;
    where nobody can reach it. Or the journal is gone, and the markers alone are left. Or the guest
    runs, and its disks were unplugged and plugged in again: with files that have all data, or a stale
    one.
    """


@dataclass
class Doomed:
    """A connection on which something happens."""

    guest: SimulatedGuest
    fate: Fate = Fate()
    rival: bool = False
    _acts: int = field(default=0, init=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guest, name)

    def take(self, step: Step) -> object:
        self._acts += 1
        is_now, model = self._acts == self.fate.number, self.guest.model
        if self.rival and model.chance.random() < 0.1:
            is_late = step.does in (Does.START, Does.SWITCH, Does.COMMIT)
            meddle(model, snapshots=self.fate.what not in ("qemu", "both") and not is_late)
        if is_now and self.fate.when == "before":
            self._strike()
        if is_now and self.fate.what == "reply":
            self.guest.lose_next = step.by == "qmp"
            self.guest.can_reconnect = model.chance.random() < 0.5
        answer = self.guest.take(step)
        if is_now and self.fate.when == "after":
            self._strike()
        return answer

    def _strike(self) -> None:
        model = self.guest.model
        if self.fate.what in ("qemu", "both") and model.is_running:
            for _ in range(model.chance.randrange(6)):  # QEMU goes on for a while
                model.tick()
            model.crash()
        if self.fate.what in ("tool", "both"):
            raise Killed


def meddle(model: BlockLayer, *, snapshots: bool) -> None:
    """
    Somebody else cancels or dismisses a job, or takes a snapshot.

    Args:
        model: The guest's QEMU.
        snapshots: Whether it may be one. Only who took it knows it when QEMU dies; and right before
            an act that changes the graph the last look has been, so nothing can be done about it.
    """
    if not model.is_running:
        return
    with suppress(CommandFailed):
        if model.jobs:
            job = model.chance.choice(list(model.jobs))
            model.execute(model.chance.choice(["job-cancel", "job-dismiss"]), {"id": job})
        elif snapshots and model.chance.random() < 0.3:
            below = model.chains[model.chance.choice(list(model.chains))][0]
            name = f"{FOREIGN}{model.chance.randrange(1 << 30)}"
            model.make(f"{model.folder}/{name}", "qcow2", os.path.basename(model.nodes[below]))
            model.blockdev_add({"node-name": name, "file": {"filename": f"{model.folder}/{name}"}})
            action = {"data": {"node": below, "overlay": name}}
            model.execute("transaction", {"actions": [action]})
