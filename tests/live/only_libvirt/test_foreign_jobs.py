"""A job that another tool has started by libvirt: what it is for is asked, not assumed."""

from __future__ import annotations

import libvirt
import pytest

from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, assert_sound
from tests.rig.roads import MakeRig
from tests.rig.situations import situation
from tests.rig.waiting import until

READY = "ready='yes'"


@situation(
    "Under libvirt, another tool has started an active commit of the same disk, into another file",
    happens="refused: the job is not taken up, and not pivoted",
    code=4,
    then="Wait for it (`qmpsnap job wait`) or cancel it (`qmpsnap job cancel`).",
    kind=9,
)
@pytest.mark.parametrize("options", [(), ("--plan",)], ids=["delete", "plan"])
def test_active_commit_into_another_file(make_rig: MakeRig, options: tuple[str, ...]) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        assert isinstance(rig.guest, LibvirtMachine)
        domain, before = rig.guest.domain, rig.files()
        content = rig.guest.read_sha256(DISK)
        domain.blockCommit(
            DISK, str(rig.folder / BASE), None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        )
        until(lambda: READY in domain.XMLDesc(0))
        said = rig.cli("delete", DISK, "s2", "--method", "commit", *options)
        assert said.code == 4, said
        assert "has a job that has not ended" in said.err
        assert READY in domain.XMLDesc(0)
        domain.blockJobAbort(DISK, 0)
        until(lambda: not domain.blockJobInfo(DISK, 0))
        assert rig.files() == before
        assert rig.guest.read_sha256(DISK) == content
        assert_sound(rig.disk())
