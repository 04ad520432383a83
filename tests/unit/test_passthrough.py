"""A call to libvirt that QEMU may never answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from qmpsnap.monitor import passthrough
from qmpsnap.monitor.base import CommandFailed, LostInMidCommand
from qmpsnap.monitor.passthrough import MonitorBusy, PassthroughMonitor, in_time


def test_an_answer_is_handed_on() -> None:
    assert in_time(lambda: 7) == 7
    assert in_time(lambda: None) is None


def test_an_error_is_raised_here() -> None:
    def call() -> int:
        raise KeyError("domain")

    with pytest.raises(KeyError, match="domain"):
        in_time(call)


def test_no_answer_is_not_waited_for() -> None:
    answered = threading.Event()
    with pytest.raises(MonitorBusy, match=r"no answer from QEMU within 0\.01 s"):
        in_time(answered.wait, timeout=0.01)
    answered.set()


@pytest.mark.parametrize("text", ["", "garbage", "[]", "7", "{}", '{"return": ' + "[" * 200_000])
def test_text_that_is_not_a_reply(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def module(name: str = "libvirt") -> SimpleNamespace:
        if name == "libvirt":
            return SimpleNamespace(libvirtError=KeyError)
        return SimpleNamespace(qemuMonitorCommand=lambda *_arguments: text)

    monkeypatch.setattr("qmpsnap.monitor.passthrough.libvirt_module", module)
    with pytest.raises(LostInMidCommand, match="libvirt's reply is "):
        PassthroughMonitor(domain=None).execute("query-jobs")


class Libvirt:
    """What the passthrough takes from libvirt's modules; `answer` stands for QEMU."""

    libvirtError = OSError

    def __init__(self, answer: Callable[[dict[str, Any]], object]) -> None:
        self._answer = answer
        self.threads: set[int] = set()

    def qemuMonitorCommand(self, domain: object, request: str, flags: int) -> str:
        assert (domain, flags) == ("domain", 0)
        self.threads.add(threading.get_ident())
        return json.dumps(self._answer(json.loads(request)))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., object]], Any]:
    def connect(answer: Callable[..., object]) -> tuple[PassthroughMonitor, Libvirt]:
        libvirt = Libvirt(answer)
        monkeypatch.setattr(passthrough, "libvirt_module", lambda name="libvirt": libvirt)
        return PassthroughMonitor("domain"), libvirt

    return connect


def test_all_commands_of_a_monitor_are_sent_by_one_thread(connect: Any) -> None:
    def answer(request: dict[str, Any]) -> object:
        if request["execute"] == "gone":
            return {"error": {"class": "CommandNotFound", "desc": "not found"}}
        return {"return": request["arguments"]}

    monitor, libvirt = connect(answer)
    first, gone, last = monitor.execute_all([("a", {"b": 1}), ("gone", {}), ("c", {})])
    assert (first, last) == ({"b": 1}, {})
    assert isinstance(gone, CommandFailed)
    assert monitor.execute("a", {"b": 2}) == {"b": 2}
    with pytest.raises(CommandFailed, match="not found"):
        monitor.execute("gone")
    assert len(libvirt.threads) == 1
    assert threading.get_ident() not in libvirt.threads
    monitor.close()
    assert monitor.execute("a") == {}, "closed, and used again after a reconnect"


def test_a_qemu_that_is_stopped_holds_nobody_up(connect: Any) -> None:
    goes_on = threading.Event()

    def answer(request: dict[str, Any]) -> object:
        if request["execute"] == "stuck":
            goes_on.wait()
        return {"return": 7}

    monitor, _ = connect(answer)
    with pytest.raises(MonitorBusy, match="stopped, or busy"):
        monitor.execute_all([("query-jobs", {}), ("stuck", {}), ("query-jobs", {})], timeout=0.01)
    assert monitor.execute("query-jobs") == 7
    goes_on.set()


@pytest.mark.parametrize("reply", ["[" * 100_000, "nothing", "7", '{"error": 7}'])
def test_a_reply_that_is_not_one(connect: Any, reply: str) -> None:
    monitor, libvirt = connect(lambda request: None)
    libvirt.qemuMonitorCommand = lambda *_: reply
    with pytest.raises(LostInMidCommand, match="libvirt's reply is"):
        monitor.execute("query-jobs")
