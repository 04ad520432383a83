"""Snapshots of a volume while its server is rescued, with the volume attached."""

from __future__ import annotations

import pytest
from lxml import etree

from qmpsnap.openstack.nova import kept_xml
from tests.openstack.rig.guest import Guest, attached
from tests.openstack.rig.rig import Rig


def _unrescued(rig: Rig, guest: Guest) -> tuple[str, str | None]:
    """The file that it runs from afterwards, and the active one by `.info`."""
    rig.nova("POST", "unrescue", {"volume": guest.volume})
    guest.connect()
    return guest.live_chain()[0][0], (rig.info(guest.volume) or {}).get("active")


def test_it_goes_on_with_the_file_that_it_had(our_nova: Rig) -> None:
    rig = our_nova
    with attached(rig) as guest:
        guest.io("write -P 1 0 1M")
        rig.nova("POST", "rescue", {"volume": guest.volume})
        snapshot, became, _ = rig.snapshot(guest.volume)
        assert became == "available"
        guest.io("write -P 2 0 1M")
        runs, active = _unrescued(rig, guest)
        assert runs == active == f"volume-{guest.volume}.{snapshot}"
        assert guest.reads(2, "0", "1M")
        rig.nova("POST", "rescue", {"volume": guest.volume})
        assert rig.delete(snapshot)[0] is None
        runs, active = _unrescued(rig, guest)
        assert runs == active
        assert not (rig.share / f"volume-{guest.volume}").exists()
        assert guest.reads(2, "0", "1M")


DISK = """<domain type='kvm'><devices>
<disk type='file'><driver name='qemu' type='{format}' cache='none'/><source file='{file}'/>
{below}<target dev='vda'/><serial>v</serial></disk>
<disk type='file'><driver name='qemu' type='raw'/><source file='/root'/><target dev='vdb'/></disk>
<disk type='network'><source protocol='rbd' name='x'/><serial>w</serial></disk>
</devices></domain>"""
BELOW = "<backingStore type='file'><format type='raw'/><source file='/v'/><backingStore/></backingStore>"
KEPT = DISK.format(format="raw", file="/v", below="<backingStore/>")


def _first(definition: str) -> tuple[str | None, str | None, list[str | None]]:
    disk = etree.fromstring(definition).find("./devices/disk")
    assert disk is not None
    driver, source = disk.find("driver"), disk.find("source")
    assert driver is not None
    assert source is not None
    below = [one.get("file") for one in disk.iterfind(".//backingStore/source")]
    return driver.get("type"), source.get("file"), below


@pytest.mark.parametrize(
    ("now", "becomes"),
    [
        (DISK.format(format="qcow2", file="/v.1", below=BELOW), ("qcow2", "/v.1", ["/v"])),
        (KEPT, ("raw", "/v", [])),
        ("<domain><devices/></domain>", ("raw", "/v", [])),
    ],
    ids=["a snapshot since", "none", "a legacy rescue"],
)
def test_disks_have_the_files_of_the_guest(now: str, becomes: tuple[str, str, list[str]]) -> None:
    renewed = kept_xml.renewed(KEPT, now)
    assert _first(renewed) == becomes
    assert kept_xml.files_of(renewed) == {"v": becomes[1]}


def test_the_journal_has_the_last_word() -> None:
    then = kept_xml.pointed(DISK.format(format="qcow2", file="/v.1", below=BELOW), "v", "/v", "raw")
    assert _first(then) == ("raw", "/v", [])
