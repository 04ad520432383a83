"""Guards that only libvirt can bring about; the others stand in `tests/live/test_guards.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.rig import images
from tests.rig.guards import beside_a_link, refused, refused_then_done
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.off import defined_off
from tests.rig.others import WAYS, another_guest
from tests.rig.refusing import by_name, refused_alike
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SIZE
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
    "by its definition, however far down and however named (`json:`, `blkdebug:`, an argument for "
    "QEMU), its saved memory, a snapshot's record, a pool's volume",
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


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_images_that_rest_on_the_base_of_a_guest_that_is_off(
    connection: Any, tmp_path: Path
) -> None:
    """A clone beside the file that a link leads to; and one that was last written before the base."""
    with defined_off(connection, _made(tmp_path / "off"), "qcow2") as off:
        clone = beside_a_link(off.folder / BASE)
        assert off.rig.cli("create", DISK, "s1").code == 0
        delete, content = by_name("delete", "s1"), images.sha256_of(clone, "qcow2")
        refused_alike(off.rig, delete, f"{clone}, by its header")
        assert images.sha256_of(clone, "qcow2") == content
        os.utime(off.folder / BASE)
        words = f"only because {BASE} was written later: {clone}; if somebody needs one"
        planned, said = off.rig.cli(*delete, "--plan"), off.rig.cli(*delete)
        assert (planned.code, said.code) == (0, 0), (planned, said)
        assert words in planned.out
        assert words in said.err


@situation(
    "The file that is to become the overlay is there, empty and over the active file, and is the "
    "fresh disk of another guest, or what an image beside it rests on",
    happens="refused (`OverlayInUse`), by `--plan` as well",
    code=4,
    then="Choose another name.",
    pain=4,
    kind=2,
)
@remedy("OverlayInUse")
def test_overlay_that_is_the_fresh_disk_of_another_guest(
    make_rig: MakeRig, connection: Any
) -> None:
    with make_rig("raw") as rig:
        overlay = rig.folder / f"{BASE}.web2"
        images.create_qcow2(overlay, SIZE, BASE, "raw")
        with another_guest(connection, overlay, "qcow2", "the file itself") as who:
            said = refused_alike(rig, by_name("create", "web2"), f"it is used by {who}")
            assert "Choose another name" in said
            assert rig.cli("create", DISK, "web3").code == 0
    with defined_off(connection, _made(rig.folder.parent / "off"), "raw") as off:
        overlay = off.folder / f"{BASE}.web2"
        images.create_qcow2(overlay, SIZE, BASE, "raw")
        with another_guest(connection, overlay, "qcow2", "the file itself") as who:
            refused_alike(off.rig, by_name("create", "web2"), f"it is used by {who}")
        assert off.rig.cli("create", DISK, "web2").code == 0


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
