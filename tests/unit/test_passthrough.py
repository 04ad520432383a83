"""A call to libvirt that QEMU may never answer."""

from __future__ import annotations

import threading

import pytest

from qmpsnap.monitor.passthrough import MonitorBusy, in_time


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
