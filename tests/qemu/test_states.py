"""
By QMP, in each state that QEMU can be brought into; the tests stand in `tests/support/states.py`.

`prelaunch` is the state of the guests of all other tests here. `internal-error` needs KVM or a
device that fails, `colo` a second QEMU, and in `save-vm` and `restore-vm` QEMU answers nobody: for
these, tests/unit/test_run_state.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap.demo.disks import qcow2_chain
from tests.qemu.conftest import direct_rig
from tests.support import states
from tests.support.jobs import until
from tests.support.rig import BASE, DISK, SERIAL, Rig
from tests.support.states import (
    Machine,
    MakeMachine,
    Ports,
    make_files,
    migrate_away,
    state_of,
)

_DEVICES = {
    "guest-panicked": ["-device", "pvpanic", "-action", "panic=pause"],
    "watchdog": ["-device", "ib700", "-action", "watchdog=pause"],
    "suspended": ["-global", "PIIX4_PM.disable_s3=0"],
    "shutdown": ["-no-reboot", "-no-shutdown"],
}


@pytest.fixture
def short_path() -> Iterator[Path]:
    """For a socket, whose path has at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="qs-", dir="/tmp"))
    yield folder / "qtest"
    shutil.rmtree(folder)


def _machine(rig: Rig, ports: Ports) -> Machine:
    def word() -> str | None:
        with rig.host() as host:
            return host.run_state()

    return Machine(
        rig=rig,
        ports=ports,
        go_on=lambda: rig.guest.qmp("cont"),
        pause=lambda: rig.guest.qmp("stop"),
        end=lambda: rig.guest.quit(),  # type: ignore[attr-defined]
        word=word,
    )


@pytest.fixture
def make_machine(tmp_path: Path, short_path: Path) -> MakeMachine:
    """`make_machine(state)`: a new guest that can be brought into it."""

    @contextmanager
    def make(state: str, *arguments: str) -> Iterator[Machine]:
        folder = tmp_path / "share"
        folder.mkdir(exist_ok=True)
        files = [(folder / name, format_) for name, format_ in make_files(folder, state)]
        ports = Ports(short_path)
        disk = qcow2_chain(files, DISK, SERIAL)
        machine_args = [*_DEVICES.get(state, []), *arguments, *ports.arguments]
        with direct_rig(folder, disk, machine_args) as rig:
            rig.road += ["--agent", str(folder / "nobody")]
            yield _machine(rig, ports)

    return make


class TestStates(states.States):
    @pytest.fixture(
        params=[
            "running",
            "paused",
            "suspended",
            "shutdown",
            "guest-panicked",
            "watchdog",
        ]
    )
    def state(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(params=["inmigrate", "postmigrate", "arrived"])
    def away(
        self, request: pytest.FixtureRequest, make_machine: MakeMachine, tmp_path: Path
    ) -> Iterator[Machine]:
        """A guest whose images another QEMU may write."""
        where: str = request.param
        saved = tmp_path / "saved"
        if where == "arrived":
            with make_machine("away") as gone:
                migrate_away(gone.rig, saved)
        with make_machine("away", *(["-incoming", "defer"] * (where != "postmigrate"))) as machine:
            rig = machine.rig
            if where == "postmigrate":
                migrate_away(rig, saved)
            if where == "arrived":
                # libvirt sets it: the images are to be taken when the guest is resumed.
                late = {"capability": "late-block-activate", "state": True}
                rig.guest.qmp("migrate-set-capabilities", {"capabilities": [late]})
                rig.guest.qmp("migrate-incoming", {"uri": f"exec:cat {saved}"})
                until(lambda: state_of(rig) == "prelaunch")
            yield machine

    def test_images_that_are_taken_back(self, make_machine: MakeMachine, tmp_path: Path) -> None:
        """The migration has failed after all, and the guest goes on here."""
        with make_machine("away") as machine:
            machine.go_on()
            migrate_away(machine.rig, tmp_path / "saved")
            assert machine.rig.cli("create", DISK, "n").code == 4
            machine.go_on()
            assert machine.rig.cli("create", DISK, "n").code == 0
            assert machine.rig.delete(f"{BASE}.s1", BASE).code == 0

    def test_images_that_are_being_given_away(
        self, make_machine: MakeMachine, tmp_path: Path
    ) -> None:
        """QEMU waits in `finish-migrate` where the other side is to be told first."""
        with make_machine("away") as machine:
            rig = machine.rig
            wait = {"capability": "pause-before-switchover", "state": True}
            rig.guest.qmp("migrate-set-capabilities", {"capabilities": [wait]})
            machine.go_on()
            rig.guest.qmp("migrate", {"uri": f"exec:cat > {tmp_path}/saved"})
            until(lambda: state_of(rig) == "finish-migrate")
            for said in (rig.cli("create", DISK, "n"), rig.delete(f"{BASE}.s1", BASE)):
                assert said.code == 4
                assert "--allow migration" in said.err
            rig.guest.qmp("migrate_cancel")


class TestEndings(states.Endings):
    pass
