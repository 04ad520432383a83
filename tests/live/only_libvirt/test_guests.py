"""`guests`: running and off, one that cannot be read, and what is found in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from qmpsnap.cli import guests
from qmpsnap.cli.connection import Road
from qmpsnap.cli.every_guest import Answer, Domain, by_libvirt
from qmpsnap.guests.replay import OnlyRecorded
from tests.live.only_libvirt.test_findings import alone  # noqa: F401  # a fixture
from tests.rig import images
from tests.rig.defined import defined
from tests.rig.rig import BASE, DISK, SIZE, run_cli
from tests.rig.roads import MakeRig

pytestmark = pytest.mark.usefixtures("alone")


def test_running_and_off(make_rig: MakeRig, connection: Any, tmp_path: Path) -> None:
    images.create_qcow2(tmp_path / "off", SIZE)
    with make_rig("raw") as rig, defined(connection, tmp_path / "off", "qcow2") as other:
        rig.grow(3)
        said = run_cli([*rig.road, "guests", "-o", "json"])
        assert said.code == 0, said
        assert said.json["schema"] == "qmpsnap.guests/1"
        found = {one["guest"]: one for one in said.json["guests"]}
        assert [one["guest"] for one in said.json["guests"]] == sorted(found)
        (running,) = found[rig.names[0]]["disks"]
        assert (running["depth"], running["file"]) == (3, f"{BASE}.s2")
        off = found[other.domain.name()]
        assert (off["running"], off["error"], off["findings"]["error"]) == (False, None, 0)
        assert off["disks"][0]["path"] == str(tmp_path / "off")
        shown = run_cli([*rig.road, "guests"])
        assert "2 guests, 1 of them off" in shown.err
        assert sum(f"  {DISK} " in line for line in shown.out.splitlines()) == 2


def test_an_audit_as_a_page(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.guest.write_bytes(DISK, 0, b"conectix".ljust(512, b"\0"))
        rig.grow(3)
        said = run_cli([*rig.road, "audit", "-o", "html"])
        assert said.code == 3
        shown = " ".join(map(str, etree.fromstring(said.out.encode()).itertext()))
        for name in (rig.names[0], f"{BASE}.s2", f"{BASE}.s1", BASE, "image-header-in-raw"):
            assert name in shown


def test_what_is_found_is_counted(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.guest.write_bytes(DISK, 0, b"conectix".ljust(512, b"\0"))
        said = run_cli([*rig.road, "guests", "-o", "json"])
        assert said.code == 0
        verified = rig.cli("verify", "-o", "json").json["count"]
        assert said.json["guests"][0]["findings"] == verified
        assert sum(verified.values()) == 1
        assert "1 warning" in run_cli([*rig.road, "guests"]).out


def test_one_that_cannot_be_read_hides_no_other(
    make_rig: MakeRig, connection: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.create_raw(tmp_path / "off", SIZE)

    def fail() -> Answer:
        raise OnlyRecorded("this")

    def look(road: Road, domain: Domain) -> Callable[[], Answer]:
        return by_libvirt(road, domain) if domain.running else fail

    monkeypatch.setattr(guests, "by_libvirt", look)
    with make_rig("raw") as rig, defined(connection, tmp_path / "off", "raw") as other:
        said = run_cli([*rig.road, "guests", "-o", "json"])
        assert said.code == 0
        found = {one["guest"]: one for one in said.json["guests"]}
        assert len(found[rig.names[0]]["disks"]) == 1
        assert found[other.domain.name()]["disks"] == []
        assert found[other.domain.name()]["error"] == str(OnlyRecorded("this"))
        assert f"cannot be read: {OnlyRecorded('this')}" in run_cli([*rig.road, "guests"]).out


def test_a_socket_is_one_guest() -> None:
    said = run_cli(["--qmp", "/nowhere", "guests"])
    assert said.code == 2
    assert "that is one guest" in said.err


def test_no_libvirt() -> None:
    said = run_cli(["-c", "qemu+unix:///system?socket=/nowhere", "guests", "-o", "json"])
    assert said.code == 7
    assert '"LibvirtUnreachable"' in said.err
