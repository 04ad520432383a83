"""A guest by its QMP socket, for the length of a block or of a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from qmpsnap.formats.verdict import Verdict
from qmpsnap.guests.connect import connect_qmp
from qmpsnap.monitor.base import ConnectionLost
from qmpsnap.monitor.socket import CannotConnect
from tests.rig.rig import BASE, DISK, Rig

MakeRig = Callable[..., AbstractContextManager[Rig]]


@pytest.fixture
def rig(make_rig: MakeRig) -> Iterator[Rig]:
    with make_rig("qcow2") as rig:
        yield rig


def _socket(rig: Rig) -> str:
    return rig.road[-1]


def test_a_block(rig: Rig) -> None:
    """QEMU serves one client at a time, so a second connection shows that the first has ended."""
    for _ in range(2):
        with connect_qmp(_socket(rig)) as guest:
            (layer,) = guest.read().disk(DISK).layers
            assert (layer.file, layer.format, layer.verdict) == (BASE, "qcow2", Verdict.EXACT)


def test_close(rig: Rig) -> None:
    guest = connect_qmp(_socket(rig))
    guest.close()
    guest.close()
    with pytest.raises(ConnectionLost):
        guest.read()
    connect_qmp(_socket(rig)).close()


def test_nobody_there(rig: Rig) -> None:
    with pytest.raises(CannotConnect):
        connect_qmp(f"{_socket(rig)}.no")


_PROGRAMS = {
    "ends": """
guest = connect_qmp(sys.argv[1])
guest.read()
""",
    "ends a function": """
def use():
    connect_qmp(sys.argv[1]).read()
use()
gc.collect()
""",
    "fails": """
guest = connect_qmp(sys.argv[1])
guest.read().disk("no")
""",
    "lost the guest": """
guest = connect_qmp(sys.argv[1])
try:
    guest._monitor.execute("quit")
    guest.read()
except QmpsnapError:
    pass
""",
}


@pytest.mark.parametrize("program", _PROGRAMS)
def test_a_program_that_does_not_close_it(rig: Rig, program: str) -> None:
    """
    With all warnings, as the program's developers run it.

    Not in asyncio's debug mode: that one also complains of what takes long on a busy machine.
    """
    imports = """
import gc, sys
from qmpsnap.errors import QmpsnapError
from qmpsnap.guests.connect import connect_qmp
"""
    command = [sys.executable, "-W", "error", "-c", imports + _PROGRAMS[program]]
    said = subprocess.run([*command, _socket(rig)], capture_output=True, text=True, check=False)
    if program != "fails":
        assert (said.returncode, said.stderr) == (0, "")
        return
    assert said.returncode == 1
    lines = said.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines.count(lines[0]) == 1, "and nothing but the program's own"
    assert "DiskNotFound" in lines[-1]
