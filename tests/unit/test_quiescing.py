"""Freeze and thaw with an agent in memory: every error, and the helper that goes on."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from qmpsnap.cli.main import run
from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.agent import thawer
from qmpsnap.guests.agent.agent import Agent, AgentRefused, AgentSilent, AgentUnreachable
from qmpsnap.guests.agent.quiescer import Quiescer, SocketQuiescer
from qmpsnap.guests.agent.thawer import DONE, NoThawer, Thawer, watch
from qmpsnap.guests.qmp.steps import QmpComposer
from qmpsnap.operations.guest import Thawed
from qmpsnap.operations.quiesce import CannotFreeze, NotThawed
from tests.unit.test_agent import good

ERRORS = [AgentUnreachable("x"), AgentSilent("x"), AgentRefused("x")]


class FakeAgent:
    """Two filesystems; each step may fail in turn."""

    def __init__(self, **fails: list[BaseException]) -> None:
        self.frozen = 0
        self.fails = fails
        self.calls: list[str] = []

    def _step(self, name: str) -> None:
        self.calls.append(name)
        if self.fails.get(name):
            raise self.fails[name].pop(0)

    def check(self, timeout: float) -> None:
        self._step("check")
        if self.frozen:
            raise AgentRefused("frozen")

    def freeze(self, timeout: float) -> int:
        self._step("freeze")
        self.frozen = 2
        return 2

    def thaw(self, timeout: float) -> int:
        self._step("thaw")
        thawed, self.frozen = self.frozen, 0
        return thawed


class FakeHelper(Thawer):
    def __init__(self) -> None:
        self.end = ""

    def release(self) -> None:
        self.end = "released"

    def leave(self) -> None:
        self.end = "left"


class Quiesces(Quiescer):
    def __init__(self, agent: FakeAgent, error: QmpsnapError | None = None) -> None:
        super().__init__()
        self.fake = agent
        self.error = error
        self.helper = FakeHelper()
        self.connected = False

    def _connect(self) -> Agent:
        self.connected = True
        return self.fake

    def _start_helper(self, seconds: float) -> Thawer:
        if self.error:
            raise self.error
        return self.helper

    def _hang_up(self) -> None:
        self.connected = False


def test_frozen_and_thawed_by_the_steps_of_a_guest_with_an_agent() -> None:
    quiescer = Quiesces(FakeAgent())
    freeze, thaw = QmpComposer(lambda _: False, has_agent=True).freeze(1)
    assert (freeze.what, thaw.what) == ("guest-fsfreeze-freeze", "guest-fsfreeze-thaw")
    assert quiescer.take(freeze) == 2
    thawed = quiescer.take(thaw)
    assert isinstance(thawed, Thawed)
    assert (thawed.count, thawed.problem) == (2, None)
    assert thawed.frozen_s is not None
    assert quiescer.fake.calls == ["check", "freeze", "thaw", "check"]
    assert (quiescer.helper.end, quiescer.connected) == ("released", False)


@pytest.mark.parametrize("error", ERRORS)
def test_agent_that_is_not_ready_is_asked_for_nothing(error: BaseException) -> None:
    quiescer = Quiesces(FakeAgent(check=[error]))
    with pytest.raises(CannotFreeze) as caught:
        quiescer.freeze(1)
    assert not caught.value.asked
    assert quiescer.fake.calls == ["check"]
    assert not quiescer.connected


def test_no_freeze_without_the_helper() -> None:
    quiescer = Quiesces(FakeAgent(), NoThawer("no"))
    with pytest.raises(CannotFreeze) as caught:
        quiescer.freeze(1)
    assert not caught.value.asked
    assert "freeze" not in quiescer.fake.calls
    assert quiescer.thaw(1).count == 0
    assert "thaw" not in quiescer.fake.calls


@pytest.mark.parametrize("error", ERRORS)
def test_freeze_that_fails_may_have_begun(error: BaseException) -> None:
    quiescer = Quiesces(FakeAgent(freeze=[error]))
    with pytest.raises(CannotFreeze) as caught:
        quiescer.freeze(1)
    assert caught.value.asked
    assert quiescer.thaw(1).frozen_s is None
    assert quiescer.helper.end == "released"


@pytest.mark.parametrize("step", ["thaw", "check"])
def test_thaw_that_fails_once_is_tried_again(step: str) -> None:
    """Windows: the first thaw says that the ten seconds were over."""
    quiescer = Quiesces(FakeAgent())
    quiescer.freeze(1)
    quiescer.fake.fails = {step: [AgentRefused("limited up to 10 seconds")]}
    thawed = quiescer.thaw(1)
    assert "limited up to 10 seconds" in (thawed.problem or "")
    assert (quiescer.fake.frozen, quiescer.helper.end) == (0, "released")


@pytest.mark.parametrize("step", ["thaw", "check"])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_ctrl_c_waits_for_the_thaw(step: str, times: int) -> None:
    quiescer = Quiesces(FakeAgent())
    quiescer.freeze(1)
    quiescer.fake.fails = {step: [KeyboardInterrupt()] * times}
    with pytest.raises(KeyboardInterrupt):
        quiescer.thaw(1)
    assert (quiescer.fake.frozen, quiescer.helper.end) == (0, "released")


@pytest.mark.parametrize("error", [*ERRORS, KeyboardInterrupt()])
def test_thaw_that_is_not_confirmed_is_left_to_the_helper(error: BaseException) -> None:
    quiescer = Quiesces(FakeAgent())
    quiescer.freeze(1)
    quiescer.fake.fails = {"thaw": [error] * 10}
    with pytest.raises(NotThawed):
        quiescer.thaw(1)
    assert (quiescer.helper.end, quiescer.connected) == ("left", False)


class TestWatch:
    """What the helper does, with a pipe to its maker."""

    @pytest.fixture
    def pipe(self) -> Iterator[tuple[int, int]]:
        read, write = os.pipe()
        yield read, write
        for end in (read, write):
            try:
                os.close(end)
            except OSError:
                continue

    def frozen(self, **fails: list[BaseException]) -> FakeAgent:
        agent = FakeAgent(**fails)
        agent.frozen = 2
        return agent

    def test_all_is_well(self, pipe: tuple[int, int]) -> None:
        agent = self.frozen()
        os.write(pipe[1], DONE)
        assert watch(60, pipe[0], agent)
        assert agent.calls == []

    def test_maker_ends(self, pipe: tuple[int, int]) -> None:
        agent = self.frozen()
        os.close(pipe[1])
        assert watch(60, pipe[0], agent)
        assert agent.frozen == 0

    def test_time_is_over(self, pipe: tuple[int, int]) -> None:
        agent = self.frozen()
        assert watch(0, pipe[0], agent)
        assert agent.frozen == 0

    def test_tries_again(self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(thawer, "PAUSE_S", 0)
        agent = self.frozen(thaw=[AgentSilent("x"), AgentRefused("x")], check=[AgentSilent("x")])
        assert watch(0, pipe[0], agent)
        assert agent.frozen == 0

    def test_guest_is_gone(self, pipe: tuple[int, int]) -> None:
        assert not watch(0, pipe[0], self.frozen(thaw=[AgentUnreachable("gone")]))

    def test_gives_up(self, pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(thawer, "GIVE_UP_S", 0)
        assert not watch(0, pipe[0], self.frozen())


class TestProcess:
    """The helper itself, over a socket pair with an agent at the other end."""

    def served(self, theirs: socket.socket) -> list[str]:
        heard: list[str] = []
        received = b""
        while data := theirs.recv(4096):
            received += data
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                request = json.loads(line.rpartition(b"\xff")[2])
                heard.append(request["execute"])
                theirs.sendall(good(request["execute"], request["arguments"].get("id", 0)))
        return heard

    def run(self, end: str) -> list[str]:
        ours, theirs = socket.socketpair()
        heard: list[str] = []
        helper = Thawer(60, "fd", str(ours.fileno()), keep=[ours.fileno()])
        ours.close()  # as when the maker dies
        thread = threading.Thread(target=lambda: heard.extend(self.served(theirs)))
        thread.start()
        getattr(helper, end)()
        thread.join()  # the helper has hung up
        theirs.close()
        helper._process.wait()
        return heard

    def test_left(self) -> None:
        assert self.run("leave") == [
            "guest-sync-delimited",
            "guest-fsfreeze-thaw",
            "guest-sync-delimited",
            "guest-fsfreeze-status",
        ]

    def test_released(self) -> None:
        assert self.run("release") == []

    def test_that_cannot_start(self) -> None:
        with pytest.raises(NoThawer, match="ended at once"):
            Thawer(60, "nonsense")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--agent", "agent", "disks", "web1"],
        ["--agent", "agent", "--connect", "test:///default", "disks", "web1"],
        ["create", "web1", "vda", "--freeze-timeout", "0"],
        ["create", "web1", "vda", "--freeze-timeout", "nan"],
        ["create", "web1", "vda", "--freeze-timeout", "inf"],
        ["create", "web1", "vda", "--quiesce", "maybe"],
        ["--max-stall", "nan", "disks", "web1"],
        ["--max-stall", "-1", "disks", "web1"],
        ["audit", "--timeout", "nan"],
        ["delete", "web1", "vda", "a", "--timeout", "nan"],
        ["wait", "web1", "vda", "--timeout", "nan"],
    ],
)
def test_options_that_make_no_sense(arguments: list[str]) -> None:
    assert run(arguments) == 2


def test_agent_whose_socket_was_not_given() -> None:
    with pytest.raises(CannotFreeze, match="its socket was not given"):
        QmpComposer(lambda _: False).freeze(1)
    with pytest.raises(CannotFreeze, match="its socket was not given"):
        SocketQuiescer(None).freeze(1)
