"""Guards that only libvirt can bring about; the others stand in `tests/live/test_guards.py`."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from tests.rig.guards import refused, refused_then_done
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.others import WAYS, another_guest
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK
from tests.rig.roads import MakeRig
from tests.rig.situations import situation


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT, "outgoing"),
        (libvirt.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN, "incoming"),
        (libvirt.VIR_DOMAIN_JOB_OPERATION_BACKUP, None),
        (None, None),
    ],
)
def test_migration(
    make_rig: MakeRig,
    operation: int | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is no second host to migrate to, so libvirt's answer is set in its place."""
    with make_rig("raw") as rig, rig.host() as host:
        if operation is not None:
            domain = host._domain  # type: ignore[attr-defined]
            monkeypatch.setattr(domain, "jobStats", lambda: {"operation": operation})
        assert host.state().migration == expected


@situation(
    "Another guest of this libvirt, running or off, rests on the file that a merge would write: "
    "by its definition, however far down, its saved memory, a snapshot's record, a pool's volume",
    happens="refused",
    code=4,
    then="Pull instead.",
    pain=4,
    kind=2,
)
@pytest.mark.parametrize("way", WAYS)
def test_guest_that_is_off(make_rig: MakeRig, connection: Any, way: str) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        with another_guest(connection, rig.folder / BASE, "raw", way) as who:
            refused_then_done(rig, "shared-base", f"{BASE} is also read by {who}")


@remedy("WouldHarm/libvirt-snapshots")
@pytest.mark.parametrize("way", ["libvirt deletes", "libvirt forgets"])
def test_snapshot_that_libvirt_keeps_a_record_of(make_rig: MakeRig, way: str) -> None:
    with make_rig("raw") as rig:
        rig.guest.write(DISK, 0, 65536, 1)
        assert isinstance(rig.guest, LibvirtMachine)
        domain, overlay = rig.guest.domain, rig.folder / f"{BASE}.s1"
        text = (
            f"<domainsnapshot><name>s1</name><disks><disk name='{DISK}' snapshot='external'>"
            f"<source file='{overlay}'/></disk></disks></domainsnapshot>"
        )
        snapshot = domain.snapshotCreateXML(text, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
        rig.guest.write(DISK, 65536, 65536, 2)
        content = rig.guest.read_sha256(DISK)
        refused(rig, "libvirt-snapshots", "libvirt keeps a record of", "--metadata`")
        if way == "libvirt deletes":
            snapshot.delete(0)
        else:
            snapshot.delete(libvirt.VIR_DOMAIN_SNAPSHOT_DELETE_METADATA_ONLY)
            assert rig.delete(f"{BASE}.s1", BASE).code == 0
        assert rig.files() == [BASE]
        assert rig.guest.read_sha256(DISK) == content
