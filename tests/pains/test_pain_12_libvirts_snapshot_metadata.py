"""
libvirt's snapshot metadata: a guest that has some cannot be undefined.

minishift/minishift#386, retspen/webvirtmgr#437, giovtorres/kvm-install-vm#48.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.pains.pain import Guard, Pain
from tests.rig import images
from tests.rig.defined import Defined, defined
from tests.rig.rig import BASE, DISK, MIB

WITH_METADATA = (
    libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
    | libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
)


class TestSnapshotMetadata(Pain[Defined]):
    """What there is to know of a snapshot is in the chain; libvirt keeps nothing beside it."""

    guard = Guard(
        where="qmpsnap.guests.libvirt.steps.snapshot_flags",
        instead=lambda _libvirt: WITH_METADATA,
    )

    @pytest.fixture
    def world(self, connection: Any, share: Path, borrowed: None) -> Iterator[Defined]:
        images.create_raw(share / BASE, MIB)
        with defined(connection, share / BASE, "raw") as guest:
            guest.start()
            yield guest

    def answered(self, world: Defined) -> None:
        said = world.cli("create", DISK, "s1")
        assert said.code == 0, said
        assert world.domain.snapshotNum() == 0
        assert world.cli("delete", DISK, "s1").code == 0
        world.domain.destroy()
        world.domain.undefine()

    def hurts(self, world: Defined) -> None:
        assert world.domain.snapshotNum() == 1
        world.domain.destroy()
        with pytest.raises(libvirt.libvirtError, match="with 1 snapshots"):
            world.domain.undefine()


class TestSnapshotOfLibvirtsOwn(Pain[Defined]):
    """Somebody took it with virsh, so libvirt keeps a record of it; then its file is merged."""

    guard = Guard(
        where="qmpsnap.operations.guards._lost_records", instead=lambda _plan, _around: []
    )

    @pytest.fixture
    def world(self, connection: Any, share: Path, borrowed: None) -> Iterator[Defined]:
        images.create_raw(share / BASE, MIB)
        source = f"<source file='{share / BASE}.theirs'/>"
        disks = f"<disks><disk name='{DISK}' snapshot='external'>{source}</disk></disks>"
        text = f"<domainsnapshot><name>theirs</name>{disks}</domainsnapshot>"
        with defined(connection, share / BASE, "raw") as guest:
            guest.start()
            guest.domain.snapshotCreateXML(text, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
            yield guest

    def answered(self, world: Defined) -> None:
        said = world.cli("delete", DISK, "theirs", "--remove-file")
        assert said.code == 4, said
        assert "is the overlay of snapshot theirs" in said.err
        (snapshot,) = world.domain.listAllSnapshots()
        snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
        assert world.cli("delete", DISK, "theirs", "--remove-file").code == 0

    def hurts(self, world: Defined) -> None:
        assert world.active_file() == str(world.folder / BASE)
        (snapshot,) = world.domain.listAllSnapshots()
        with pytest.raises(libvirt.libvirtError):  # its file is in no chain any more
            snapshot.delete()
