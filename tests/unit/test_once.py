"""What a process makes once, with all its threads."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from qmpsnap.monitor.once import once

THREADS = 8

RACE = f"""
import sys, threading, types
sys.setswitchinterval(1e-6)
calls = []
def has_no_loop(*_):
    raise OSError
sys.modules["libvirt"] = types.SimpleNamespace(
    libvirtError=OSError,
    virEventAddTimeout=has_no_loop,
    virEventRegisterDefaultImpl=lambda: calls.append(1),
    virEventRunDefaultImpl=threading.Event().wait,
    registerErrorHandler=lambda *_: None,
)
from qmpsnap.monitor.socket import _loop
from qmpsnap.monitor.virt import start_event_pump
barrier, loops = threading.Barrier({THREADS}), []

def use():
    barrier.wait()
    loops.append(_loop())
    start_event_pump()

threads = [threading.Thread(target=use) for _ in range({THREADS})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(loops), len(set(map(id, loops))), len(calls))
"""


def test_eight_threads_share_one_event_loop_and_one_pump() -> None:
    """In a process of its own, where nobody has asked before."""
    said = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(THREADS), "1", "1"]


def test_everybody_waits_for_the_first_one() -> None:
    barrier, begun, finish = threading.Barrier(THREADS), threading.Event(), threading.Event()
    made: list[object] = []

    @once
    def make() -> object:
        begun.set()
        finish.wait()
        made.append(object())
        return made[-1]

    found: list[object] = []

    def use() -> None:
        barrier.wait()
        found.append(make())

    threads = [threading.Thread(target=use) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    begun.wait()
    assert found == []
    finish.set()
    for thread in threads:
        thread.join()
    assert found == made * THREADS


def test_an_error_is_not_kept() -> None:
    answers = iter([KeyError("not yet"), 7])

    @once
    def make() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, int)
        return answer

    with pytest.raises(KeyError):
        make()
    assert (make(), make()) == (7, 7)
