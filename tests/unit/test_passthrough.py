"""A call to libvirt that QEMU may never answer."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from qmpsnap.monitor.base import LostInMidCommand
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
