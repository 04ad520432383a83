"""
The guest agent: a freeze hangs, and a guest that is frozen is not thawed.

oVirt/vdsm#160 (blocked for 7.7 hours), kubevirt#9998 and #10759, OpenNebula/one#5927. The agent is
a scripted one here; tests/guest/test_quiesce.py has all of it with a real Linux, `kill -9` too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from qmpsnap.operations.guest import Guest
from qmpsnap.operations.quiesce import Moment, Policy, Quiesce
from tests.pains.pain import Guard, Pain
from tests.rig.agents import ScriptedAgent, scripted_agent
from tests.rig.jobs import copy_begins
from tests.rig.rig import BASE, DISK, Rig, Said
from tests.rig.roads import MakeRig
from tests.rig.waiting import HANG_S, until

LIMIT_S = 3


@dataclass
class Freezing:
    """A guest, and its agent."""

    rig: Rig
    agent: ScriptedAgent

    @classmethod
    def of(cls, rig: Rig, agent: ScriptedAgent) -> Freezing:
        return cls(replace(rig, road=[*rig.road, "--agent", agent.path]), agent)

    def create(self, *options: str) -> Said:
        """Take a frozen snapshot."""
        return self.rig.cli("create", DISK, "new", "--quiesce", "require", *options)


class Command:
    """A create on a thread of its own."""

    def __init__(self, world: Freezing) -> None:
        self.said: Said | None = None

        def work() -> None:
            self.said = world.create("--freeze-timeout", str(LIMIT_S))

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()


class TestFreezeThatHangs(Pain[Freezing]):
    """A filesystem of the guest cannot be frozen; everybody waits."""

    guard = Guard(
        where="qmpsnap.cli.quiescing.quiesce",
        instead=lambda policy, _limit_s: Quiesce(policy=Policy(policy), limit_s=3600),
    )

    @pytest.fixture
    def world(self, make_rig: MakeRig, tmp_path: Path) -> Iterator[Freezing]:
        with make_rig("raw") as rig, scripted_agent(tmp_path, hangs=True) as agent:
            rig.guest.qmp("cont")  # of a guest that does not run nothing is asked
            yield Freezing.of(rig, agent)

    def answered(self, world: Freezing) -> None:
        self.command = Command(world)
        self.command.thread.join(HANG_S if self.guarded else 2 * LIMIT_S)
        assert not self.command.thread.is_alive()
        assert self.command.said is not None
        assert self.command.said.code == 1, self.command.said
        assert "has not confirmed that its filesystems are thawed" in self.command.said.err
        assert world.rig.files() == [BASE]
        world.agent.go_on()  # hours later it freezes after all; the thaw is waiting behind it
        until(lambda: world.agent.heard[:2] == ["freeze", "thaw"])

    def hurts(self, world: Freezing) -> None:
        assert self.command.thread.is_alive()
        world.agent.go_on()
        self.command.thread.join()


@contextmanager
def _freeze_switch_thaw(guest: Guest, quiesce: Quiesce, _moment: Moment) -> Iterator[None]:
    """One after the other; what if one fails is not thought of."""
    freeze, thaw = guest.compose.freeze(quiesce.limit_s)
    frozen.append(lambda: guest.take(thaw))  # a manager lives on
    guest.take(freeze)
    yield
    guest.take(thaw)


frozen: list[Callable[[], object]] = []


class TestErrorWhileItIsFrozen(Pain[Freezing]):
    """The snapshot cannot be taken, since somebody is copying the disk; and the guest stays frozen."""

    guard = Guard(where="qmpsnap.operations.snapshot.frozen", instead=_freeze_switch_thaw)

    @pytest.fixture
    def world(
        self, make_rig: MakeRig, tmp_path: Path, copy_begins_unseen: None
    ) -> Iterator[Freezing]:
        with make_rig("raw") as rig, scripted_agent(tmp_path) as agent:
            rig.guest.qmp("cont")
            copy_begins(rig.guest, DISK)
            yield Freezing.of(rig, agent)

    def answered(self, world: Freezing) -> None:
        said = world.create("--freeze-timeout", str(HANG_S))
        assert said.code == 1, said
        assert "busy" in said.err
        assert world.agent.heard == ["freeze", "thaw"]
        assert not world.agent.frozen
        assert world.rig.files() == [BASE]

    def hurts(self, world: Freezing) -> None:
        assert world.agent.heard == ["freeze"]
        assert world.agent.frozen
        frozen.pop()()
