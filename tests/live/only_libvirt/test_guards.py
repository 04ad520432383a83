"""Guards that only libvirt can bring about; the others stand in `tests/live/test_guards.py`."""

from __future__ import annotations

from typing import Any

import libvirt
import pytest

from tests.rig import images
from tests.rig.guards import refused, refused_then_done
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE
from tests.rig.roads import MakeRig

DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory>
  <os><type machine='pc'>hvm</type></os>
  <devices><disk type='file' device='disk'>
    <driver name='qemu' type='{format}'/><source file='{path}'/><target dev='vda' bus='virtio'/>
  </disk></devices>
</domain>
"""


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


@pytest.mark.parametrize(
    "names",
    ["the base", "an overlay on the base", "two overlays on the base", "another name of it"],
)
def test_guest_that_is_off(make_rig: MakeRig, connection: Any, names: str) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        path, format_ = rig.folder / BASE, "raw"
        if "overlay" in names:
            path, format_ = rig.folder / "other", "qcow2"
            images.create_qcow2(path, SIZE, BASE, "raw")
        if names == "two overlays on the base":
            path = rig.folder / "over-the-other"
            images.create_qcow2(path, SIZE, "other", "qcow2")
        if names == "another name of it":
            path = rig.folder / "link"
            path.hardlink_to(rig.folder / BASE)
        name = f"off-{rig.names[0]}"
        domain = connection.defineXML(DOMAIN.format(name=name, path=path, format=format_))
        try:
            refused_then_done(rig, "shared-base", f"guest {name}, which is off")
        finally:
            domain.undefine()


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
