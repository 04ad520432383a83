"""Which libvirt is meant, and when a guest is closed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qmpsnap.guests import closable
from qmpsnap.guests.closable import Closable
from qmpsnap.guests.connect import libvirt_uri


@pytest.mark.parametrize(
    ("given", "environment", "meant"),
    [
        ("qemu:///embed?root=/x", "qemu:///session", "qemu:///embed?root=/x"),
        (None, "qemu:///session", "qemu:///session"),
        ("", "", "qemu:///system"),
        (None, None, "qemu:///system"),
    ],
)
def test_uri(
    given: str | None, environment: str | None, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIBVIRT_DEFAULT_URI", raising=False)
    if environment is not None:
        monkeypatch.setenv("LIBVIRT_DEFAULT_URI", environment)
    assert libvirt_uri(given) == meant


def test_a_road_is_loaded_when_it_is_taken() -> None:
    code = """
import sys
from qmpsnap.guests.connect import connect_qmp
from qmpsnap.errors import Unreachable
try:
    connect_qmp("/no/such/socket")
except Unreachable:
    print(*sorted(name for name in sys.modules if name.endswith(".guest")))
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["qmpsnap.guests.qmp.guest", "qmpsnap.operations.guest"]


class Door(Closable):
    """Notes when it is closed."""

    def __init__(self, problem: BaseException | None = None) -> None:
        self.closed = 0
        self._problem = problem

    def _let_go(self) -> None:
        self.closed += 1
        if self._problem is not None:
            raise self._problem


def test_a_block_closes_it() -> None:
    with Door() as door:
        assert door.closed == 0
    assert door.closed == 1


def test_a_block_that_fails_closes_it() -> None:
    door = Door()
    with pytest.raises(KeyboardInterrupt), door:
        raise KeyboardInterrupt
    assert door.closed == 1


def test_what_is_left_open_is_closed_at_exit() -> None:
    broken, left, closed = Door(ValueError()), Door(), Door()
    for door in (broken, left, closed):
        door.close_at_exit()
    closed.close()
    closable._close_all()
    assert (broken.closed, left.closed, closed.closed) == (1, 1, 1)
    closable._close_all()
    assert (broken.closed, left.closed, closed.closed) == (1, 1, 1)
