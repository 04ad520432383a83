"""
Under libvirt, in each state in which it keeps a guest; the tests stand in `tests/support/states.py`.

libvirt ends a QEMU whose guest has shut down, so there is no `shutdown` here; and `paused` is the
state of the guests of all other tests here.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from lxml.builder import E, ElementMaker  # type: ignore[import-not-found]

from qmpsnap.demo.libvirt_guest import LibvirtMachine
from tests.libvirt.conftest import libvirt_rig
from tests.support import states
from tests.support.rig import BASE, DISK, Rig
from tests.support.situations import situation
from tests.support.states import (
    Machine,
    MakeMachine,
    Ports,
    make_files,
    migrate_away,
    state_of,
)

_QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"


@pytest.fixture
def short_path() -> Iterator[Path]:
    """For a socket, whose path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="qs-", dir="/tmp"))
    yield folder / "qtest"
    shutil.rmtree(folder)


def _altered(domain: Any, state: str, arguments: list[str]) -> None:
    devices = domain.find("devices")
    domain.append(E.features(E.acpi()))  # without it libvirt leaves power management out
    if state == "guest-panicked":
        devices.append(E.panic(model="isa"))
        domain.append(E.on_crash("preserve"))
    if state == "watchdog":
        devices.append(E.watchdog(model="ib700", action="pause"))
    if state == "suspended":
        domain.append(E.pm(E("suspend-to-mem", enabled="yes")))
    qemu = ElementMaker(namespace=_QEMU, nsmap={"qemu": _QEMU})
    domain.append(qemu.commandline(*(qemu.arg(value=one) for one in arguments)))


@pytest.fixture
def make_machine(connection: Any, tmp_path: Path, short_path: Path) -> MakeMachine:
    """`make_machine(state)`: a new guest that can be brought into it."""

    @contextmanager
    def make(state: str, *arguments: str) -> Iterator[Machine]:
        folder = tmp_path / "share"
        folder.mkdir(exist_ok=True)
        active, format_ = make_files(folder, state)[0]
        ports = Ports(short_path)

        def alter(domain: Any) -> None:
            _altered(domain, state, [*arguments, *ports.arguments])

        with libvirt_rig(connection, folder, format_, file=active, alter=alter) as rig:
            yield _machine(rig, ports)

    return make


def _machine(rig: Rig, ports: Ports) -> Machine:
    def word() -> str | None:
        with rig.host() as host:
            return host.run_state()

    assert isinstance(rig.guest, LibvirtMachine)
    domain = rig.guest.domain
    return Machine(
        rig=rig,
        ports=ports,
        go_on=domain.resume,
        pause=domain.suspend,
        end=domain.destroy,
        word=word,
    )


class TestStates(states.States):
    @pytest.fixture(params=["running", "guest-panicked", "watchdog"])
    def state(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(params=["inmigrate", "postmigrate"])
    def away(
        self, request: pytest.FixtureRequest, make_machine: MakeMachine, tmp_path: Path
    ) -> Iterator[Machine]:
        """
        A guest whose images another QEMU may write, and libvirt calls it paused.

        There is no second host to migrate to, so QEMU is told behind libvirt's back.
        """
        where: str = request.param
        with make_machine("away", *(["-incoming", "defer"] * (where == "inmigrate"))) as machine:
            if where == "postmigrate":
                migrate_away(machine.rig, tmp_path / "saved")
            assert state_of(machine.rig) == where
            yield machine

    @situation(
        "The guest sleeps (suspend to RAM), under libvirt",
        happens="a create is refused before anything is made, since libvirt takes no snapshot of "
        "it; a delete works",
        code=4,
        then="Wake the guest (`virsh dompmwakeup`), then give the same command again.",
    )
    def test_a_guest_that_sleeps(self, make_machine: MakeMachine) -> None:
        with make_machine("suspended") as machine:
            rig = machine.rig
            rig.create("s1")
            rig.create("s2")
            machine.reach("suspended")
            for options in ((), ("--plan",)):
                refused = rig.cli("create", DISK, "s3", *options)
                assert refused.code == 4, refused
                assert "libvirt takes no snapshot of a guest that sleeps" in refused.err
            assert not (rig.folder / f"{BASE}.s3").exists()
            assert rig.delete(f"{BASE}.s1", BASE).code == 0
            done = rig.cli("delete", DISK, "s2", "--method", "commit")
            assert done.code == 0, done
            assert "note: the guest sleeps" in done.err
            assert rig.files() == [BASE]


class TestEndings(states.Endings):
    pass
