"""
Programs of others: with an event loop for libvirt or without, with `close` and without.

On a libvirtd of its own, since each program is a process of its own.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from qmpsnap.monitor.virt import libvirt_module, open_connection
from tests.rig import daemon as libvirtd
from tests.rig import images
from tests.rig.daemon import Daemon, DaemonMachine
from tests.rig.program import LOOPS, OURS
from tests.rig.rig import BASE, DISK, SERIAL, SIZE
from tests.rig.tiers import missing

_NUMBERS = itertools.count()
_DEFINED = """
<domain type='qemu'><name>off</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{path}'/><target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """A libvirtd for all tests here."""
    if libvirtd.which("libvirtd") is None:
        missing("libvirt", "install Debian's libvirt-daemon")
    with libvirtd.running() as daemon:
        yield daemon


@dataclass
class Served:
    """A running guest of the daemon."""

    daemon: Daemon
    name: str


@pytest.fixture
def guest(daemon: Daemon) -> Iterator[Served]:
    name = f"program{next(_NUMBERS)}"
    share = daemon.folder / name
    share.mkdir()
    images.create_raw(share / BASE, SIZE)
    daemon.give(share)
    machine = DaemonMachine(daemon, name, share / BASE, DISK, SERIAL)
    yield Served(daemon, name)
    machine.destroy()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as its developers do: with all warnings."""
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("events", [*LOOPS, *OURS])
def test_whatever_the_program_does_about_events(guest: Served, events: str) -> None:
    said = run("-m", "tests.rig.program", events, guest.daemon.uri, guest.name)
    assert said.returncode == 0, said.stderr
    pumps = 1 if events == "connected" else 0
    b, c = f"{BASE}.b", f"{BASE}.c"
    assert json.loads(said.stdout) == [f"{BASE} <- {b} <- {c}", f"{BASE} <- {b}", b, pumps]
    assert said.stderr == ""


_LEFT_OPEN = {
    "read": """
guest = connect(URI, guest=NAME)
guest.read()
""",
    "following": """
guest = connect(URI, guest=NAME)
guest.follow("vda")
""",
    "of a connection that is open": """
libvirt.virEventRegisterDefaultImpl()
guest = from_domain(libvirt.open(URI).lookupByName(NAME))
guest.follow("vda")
""",
    "of a connection that is closed": """
libvirt.virEventRegisterDefaultImpl()
connection = libvirt.open(URI)
guest = from_domain(connection.lookupByName(NAME))
guest.follow("vda")
connection.close()
""",
    "in a function that has returned": """
def use():
    guest = connect(URI, guest=NAME)
    guest.follow("vda")
use()
""",
}


@pytest.mark.parametrize("way", _LEFT_OPEN)
def test_a_guest_that_is_not_closed(guest: Served, way: str) -> None:
    said = run("-c", _program(guest.daemon.uri, guest.name, _LEFT_OPEN[way]))
    assert (said.returncode, said.stderr) == (0, "")


def test_a_guest_that_is_off_and_not_closed(daemon: Daemon) -> None:
    """The chain is locked, by a QEMU that is a child of the program."""
    share = daemon.folder / "off"
    share.mkdir()
    images.create_raw(share / BASE, SIZE)
    connection = open_connection(daemon.uri)
    domain = connection.defineXML(_DEFINED.format(path=share / BASE))
    try:
        code = """
guest = connect(URI, guest=NAME)
request = CreateRequest(disk="vda", new_file=None, snapshot="s1")
(hold,) = prepared(guest, cleared_alone(guest, ["vda"]), [request], allow=()).steps.hold
guest.take(hold)
"""
        said = run("-c", _program(daemon.uri, "off", code))
        assert (said.returncode, said.stderr) == (0, "")
        again = run("-c", _program(daemon.uri, "off", code))
        assert again.returncode == 0, "the lock went with the program"
    finally:
        domain.undefineFlags(libvirt_module().VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
        connection.close()


def _program(uri: str, name: str, code: str) -> str:
    imports = """
import libvirt
from qmpsnap.guests.connect import connect, from_domain
from qmpsnap.operations.clear import cleared_alone
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import prepared
"""
    return f"{imports}\nURI, NAME = {uri!r}, {name!r}\n{code}"
