"""A guest that sleeps, of which libvirt takes no snapshot; the other states stand in `tests/live`."""

from __future__ import annotations

from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.situations import situation
from tests.rig.states import MakeMachine
from tests.rig.waiting import until


@situation(
    "The guest sleeps (suspend to RAM), under libvirt",
    happens="a create is refused before any file is made, because libvirt takes no snapshot of "
    "such a guest; a delete works",
    code=4,
    then="Wake the guest (`virsh dompmwakeup`), then give the same command again.",
)
@remedy("GuestSleeps")
def test_a_guest_that_sleeps(make_machine: MakeMachine) -> None:
    with make_machine("suspended") as machine:
        rig = machine.rig
        rig.create("s1")
        rig.create("s2")
        machine.reach("suspended")
        for options in ((), ("--plan",)):
            refused = rig.cli("create", DISK, "s3", *options)
            assert refused.code == 4, refused
            assert "libvirt takes no snapshot of a guest that sleeps" in refused.err
            assert "`virsh dompmwakeup " in refused.err
        assert not (rig.folder / f"{BASE}.s3").exists()
        assert rig.delete(f"{BASE}.s1", BASE).code == 0
        done = rig.cli("delete", DISK, "s2", "--method", "commit")
        assert done.code == 0, done
        assert "note: the guest sleeps" in done.err
        assert rig.files() == [BASE]
        assert isinstance(rig.guest, LibvirtMachine)
        rig.guest.domain.pMWakeup()
        until(lambda: machine.word() == "running")
        assert rig.cli("create", DISK, "s3").code == 0
        assert rig.files() == [f"{BASE}.s3", BASE]
