"""The guest agent's socket, with an agent that misbehaves: the guest writes what is read here."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qmpsnap.guests.agent import agent as module
from qmpsnap.guests.agent.agent import (
    AgentRefused,
    AgentSilent,
    AgentSocket,
    AgentUnreachable,
)

Reply = Callable[[str, int], bytes]
"""Bytes for a command and, for a synchronisation, its token."""


def good(command: str, token: int) -> bytes:
    """What qemu-ga says, its complaint about the delimiter included."""
    values = {"guest-fsfreeze-status": "thawed", "guest-ping": {}}
    if command == "guest-sync-delimited":
        error = {"error": {"class": "GenericError", "desc": "JSON parse error"}}
        return (
            json.dumps(error).encode() + b"\n\xff" + json.dumps({"return": token}).encode() + b"\n"
        )
    return json.dumps({"return": values.get(command, 2)}).encode() + b"\n"


class Guest:
    """The guest's end of the channel."""

    def __init__(self, end: socket.socket, reply: Reply) -> None:
        self.heard: list[str] = []
        self._end = end
        self._reply = reply
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        received = b""
        while data := self._end.recv(65536):
            received += data
            while b"\n" in received:
                line, _, received = received.partition(b"\n")
                request = json.loads(line.rpartition(b"\xff")[2])
                self.heard.append(request["execute"])
                answer = self._reply(request["execute"], request["arguments"].get("id", 0))
                if answer == HANG_UP:
                    self._end.shutdown(socket.SHUT_RDWR)
                    return
                with suppress(BrokenPipeError):  # nobody waits for it any more
                    self._end.sendall(answer)

    def end(self) -> None:
        self._thread.join()
        self._end.close()


HANG_UP = b"hang up"


@contextmanager
def talking(reply: Reply) -> Iterator[tuple[AgentSocket, Guest]]:
    ours, theirs = socket.socketpair()
    guest, agent = Guest(theirs, reply), AgentSocket(ours)
    try:
        yield agent, guest
    finally:
        ours.shutdown(socket.SHUT_RDWR)
        guest.end()
        agent.close()


def instead(command: str, answer: bytes) -> Reply:
    return lambda asked, token: answer if asked == command else good(asked, token)


def test_freeze_and_thaw() -> None:
    with talking(good) as (agent, guest):
        agent.check(5)
        assert (agent.freeze(5), agent.thaw(5)) == (2, 2)
    asked = [command for command in guest.heard if command != "guest-sync-delimited"]
    assert asked == [
        "guest-fsfreeze-status",
        "guest-ping",
        "guest-fsfreeze-freeze",
        "guest-fsfreeze-thaw",
    ]


def test_no_freeze_is_left_in_the_channel_of_an_agent_that_does_not_answer() -> None:
    with (
        talking(lambda _command, _token: b"") as (agent, guest),
        pytest.raises(AgentSilent, match=r"within 0\.05 s"),
    ):
        agent.freeze(0.05)
    assert "guest-fsfreeze-freeze" not in guest.heard


def test_thaw_waits_for_nothing() -> None:
    """Behind a freeze that is late it is the next thing that the agent finds."""
    with talking(lambda _command, _token: b"") as (agent, guest), pytest.raises(AgentSilent):
        agent.thaw(0.05)
    assert guest.heard == ["guest-sync-delimited", "guest-fsfreeze-thaw"]


def test_late_replies_are_not_taken_for_this_one() -> None:
    """A call that timed out leaves replies behind; `7` would be a count of filesystems."""

    def reply(command: str, token: int) -> bytes:
        late = b'{"return": 7}\n\xff{"return": 1}\n{"return": 7}\n'
        return (late if command == "guest-sync-delimited" else b"") + good(command, token)

    with talking(reply) as (agent, _):
        assert agent.thaw(5) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"{}\n",
        b"[]\n",
        b"no json\n",
        b"\x00\xfe\n",
        b'{"return": "two"}\n',
        b'{"return": -1}\n',
        b'{"return": true}\n',
        b'{"error": "no"}\n',
        b'{"error": {"class": "GenericError", "desc": "failed to freeze /"}}\n',
    ],
)
def test_reply_that_is_no_count(answer: bytes) -> None:
    with (
        talking(instead("guest-fsfreeze-freeze", answer)) as (agent, _),
        pytest.raises(AgentRefused),
    ):
        agent.freeze(5)


def test_frozen_by_somebody_else() -> None:
    with (
        talking(instead("guest-fsfreeze-status", b'{"return": "frozen"}\n')) as (agent, _),
        pytest.raises(AgentRefused, match="frozen already"),
    ):
        agent.check(5)


def test_hangs_up() -> None:
    with (
        talking(instead("guest-fsfreeze-freeze", HANG_UP)) as (agent, _),
        pytest.raises(AgentUnreachable, match="broke during guest-fsfreeze-freeze"),
    ):
        agent.freeze(5)


def test_reply_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_LIMIT", 1000)
    with (
        talking(instead("guest-fsfreeze-freeze", b"x" * 2000)) as (agent, _),
        pytest.raises(AgentUnreachable, match="without an end"),
    ):
        agent.freeze(5)


def test_guest_that_talks_on_and_on_does_not_hold_us() -> None:
    with (
        talking(instead("guest-sync-delimited", b'{"return": 1}\n' * 100)) as (agent, _),
        pytest.raises(AgentSilent),
    ):
        agent.check(0.05)


@pytest.mark.parametrize("path", ["gone", "file", "x" * 200, "nul\0"])
def test_socket_that_cannot_be_had(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(AgentUnreachable):
        AgentSocket.connect(f"{tmp_path}/{path}")
