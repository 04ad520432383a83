"""
The manager's record, QEMU and the storage differ after a partial or late operation.

apache/cloudstack#14218, lxc/incus#3188, OpenNebula/one#5927: an error after the step that cannot be
taken back, and the overlay that is in use by then is cleaned up. oVirt/ovirt-engine#827: the guest
is started from a file that it left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import libvirt
import pytest

from qmpsnap.formats.layers import Disk, Disks
from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.libvirt.process import pid_of
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.monitor.base import LostInMidCommand
from qmpsnap.monitor.passthrough import PassthroughMonitor
from qmpsnap.operations.step import Does, Step
from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.defined import Defined, defined
from tests.rig.doors import at, patch
from tests.rig.headers import recorded
from tests.rig.races import take_theirs
from tests.rig.rig import BASE, DISK, MIB, SERIAL, Rig
from tests.rig.roads import MakeRig, libvirt_rigs

NEW = f"{BASE}.new"


def _as_they_were(
    _host: object, disks: Sequence[Disk], _made: object = None
) -> tuple[Disks, tuple[Disk, ...]]:
    """An error is an error: nothing has happened."""
    return Disks(guest=None, disks=tuple(disks)), tuple(disks)


class TestReplyLostAfterTheSwitch(Pain[Rig]):
    """QEMU has done it, and the answer says that it has not."""

    guard = Guard(where="qmpsnap.operations.snapshot.fresh_all", instead=_as_they_were)
    others = (
        Guard(where="qmpsnap.guests.files.locks._alone", instead=lambda _descriptor: nullcontext()),
    )

    @pytest.fixture
    def world(self, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
        def lose_the_reply(_step: Step) -> None:
            raise LostInMidCommand("transaction", "the reply did not come")

        patch(monkeypatch, QmpGuest, after=at(Does.SWITCH, lose_the_reply))
        with make_rig("raw") as rig:
            yield rig

    def answered(self, world: Rig) -> None:
        said = world.cli("create", DISK, "new")
        assert said.code == 0, said
        assert "new: qcow2" in said.out
        assert world.files() == [NEW, BASE]
        assert (world.folder / NEW).exists()

    def hurts(self, world: Rig) -> None:
        assert world.files() == [NEW, BASE]  # the guest writes to a file
        assert not (world.folder / NEW).exists()  # that has no name any more
        world.guest.write(DISK, 0, 65536, 7)
        world.guest.qemu_io(DISK, "flush")
        content = world.guest.read_sha256(DISK)
        world.kill()
        assert images.sha256_of(world.folder / BASE, "raw") != content


def _by_qmp(domain: Any, **_: object) -> QmpGuest:
    """QMP does it all, so it is sent through libvirt's passthrough."""
    return QmpGuest(PassthroughMonitor(domain), pid=pid_of(domain))


class TestMergeBehindLibvirtsBack(Pain[Defined]):
    """QEMU is on the base by now, the overlay is removed, and libvirt knows of nothing."""

    guard = Guard(where="qmpsnap.guests.libvirt.guest.LibvirtGuest", instead=_by_qmp)

    @pytest.fixture
    def world(self, connection: Any, share: Path, borrowed: None) -> Iterator[Defined]:
        images.create_raw(share / BASE, MIB)
        images.create_qcow2(share / NEW, MIB, BASE, "raw")
        with defined(connection, share / NEW, "qcow2") as guest:
            guest.start()
            yield guest

    def answered(self, world: Defined) -> None:
        said = world.cli("delete", SERIAL, "new", "--remove-file")
        assert said.code == 0, said
        assert not (world.folder / NEW).exists()
        assert world.active_file() == str(world.folder / BASE)
        world.domain.destroy()
        world.start()

    def hurts(self, world: Defined) -> None:
        assert not (world.folder / NEW).exists()
        assert world.active_file() == str(world.folder / NEW)
        world.domain.destroy()
        with pytest.raises(libvirt.libvirtError, match="No such file"):
            world.start()


class TestSnapshotInBetween(Pain[Rig]):
    """libvirt puts our overlay on top of somebody else's, and its header names the file two below."""

    guard = Guard(where="qmpsnap.operations.snapshot.mend_headers", instead=lambda *_: None)

    @pytest.fixture
    def world(
        self, connection: Any, share: Path, borrowed: None, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[Rig]:
        with libvirt_rigs(connection, share)("raw") as rig:
            patch(monkeypatch, LibvirtGuest, before=at(Does.SWITCH, lambda _step: self.race(rig)))
            yield rig

    def race(self, rig: Rig) -> None:
        take_theirs(rig)
        rig.guest.write(DISK, 0, 65536, 7)
        rig.guest.qemu_io(DISK, "flush")

    def answered(self, world: Rig) -> None:
        said = world.cli("create", DISK, "new")
        assert said.code == 6, said
        assert world.files() == [NEW, f"{BASE}.theirs", BASE]
        content = world.guest.read_sha256(DISK)
        world.kill()
        assert images.sha256_of(world.folder / NEW, "qcow2") == content

    def hurts(self, world: Rig) -> None:
        assert recorded(world.folder / NEW) == (BASE, "raw")
        with images.raw_copy(str(world.folder / NEW), "qcow2", world.folder) as copy:
            assert not any(copy.read_bytes())  # what the guest wrote after their snapshot
