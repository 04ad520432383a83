"""A migration that ends here again, or has not ended; the other states stand in `tests/live`."""

from __future__ import annotations

from pathlib import Path

from tests.rig.rig import BASE, DISK
from tests.rig.states import MakeMachine, migrate_away, state_of
from tests.rig.waiting import until


def test_images_that_are_taken_back(make_machine: MakeMachine, tmp_path: Path) -> None:
    """The migration has failed after all, and the guest goes on here."""
    with make_machine("away") as machine:
        machine.go_on()
        migrate_away(machine.rig, tmp_path / "saved")
        assert machine.rig.cli("create", DISK, "n").code == 4
        machine.go_on()
        assert machine.rig.cli("create", DISK, "n").code == 0
        assert machine.rig.delete(f"{BASE}.s1", BASE).code == 0


def test_images_that_are_being_given_away(make_machine: MakeMachine, tmp_path: Path) -> None:
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
