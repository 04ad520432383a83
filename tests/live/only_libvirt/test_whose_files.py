"""`orphans` and `explain` on a real libvirt: whose the files of a folder are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import census
from tests.live.only_libvirt.test_findings import alone  # noqa: F401  # a fixture
from tests.rig import images
from tests.rig.defined import Defined, defined
from tests.rig.rig import BASE, DISK, SIZE, Rig, run_cli
from tests.rig.roads import MakeRig

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(autouse=True)
def of_this_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder counts as one that no other host has, whatever the tests run on."""
    monkeypatch.setattr(census, "file_system", lambda _folder: "ext4")


@pytest.fixture(params=["raw", "qcow2"])
def rig(request: pytest.FixtureRequest, make_rig: MakeRig) -> Iterator[Rig]:
    """A guest of three layers, and the file that a merge has left."""
    with make_rig(request.param) as rig:
        rig.grow(4)
        assert rig.cli("delete", DISK, "s2").code == 0
        yield rig


@pytest.fixture
def off(rig: Rig, connection: Any) -> Iterator[Defined]:
    """A guest that is off, by another name of a file beside them."""
    images.create_qcow2(rig.folder / "of-another", SIZE)
    (rig.folder / "link").symlink_to("of-another")
    with defined(connection, rig.folder / "link", "qcow2") as off:
        yield off


def orphans(rig: Rig) -> dict[str, str]:
    said = rig.cli("orphans", DISK, "-o", "json")
    assert said.code == 0, said
    return {one["file"]: one["answer"] for one in said.json["files"]}


def explain(rig: Rig, name: str) -> Any:
    said = run_cli([*rig.road, "explain", str(rig.folder / name), "-o", "json"])
    assert said.code == 0, said
    return said.json


def test_what_a_merge_has_left(rig: Rig, off: Defined) -> None:
    left = f"{BASE}.s2"
    assert orphans(rig) == {left: "unused"}
    said = rig.cli("orphans", DISK)
    assert f"{left}  unused" in said.out
    assert "4 used" in said.out


def test_whose_it_is(rig: Rig, off: Defined) -> None:
    base = explain(rig, BASE)
    (place,) = base["layers"]
    assert (place["guest"], place["disk"], place["position"]) == (rig.names[0], DISK, 2)
    assert place["verdict"] == "agreed"
    assert base["answer"] == "used"
    assert {use["by"] for use in base["uses"]} >= {"guest", "process", "header"}
    other = explain(rig, "of-another")
    assert other["layers"][0]["guest"] == off.domain.name()
    by_link = explain(rig, "link")
    assert {**by_link, "asked": other["asked"]} == other
    shown = run_cli([*rig.road, "explain", str(rig.folder / f"{BASE}.s1")]).out
    assert "data of snapshot s3" in shown.replace("\n", " ")
    assert "no: it is used" in shown


def test_a_file_of_nobody(rig: Rig) -> None:
    left = explain(rig, f"{BASE}.s2")
    assert (left["answer"], left["uses"], left["layers"]) == ("unused", [], [])
    shown = run_cli([*rig.road, "explain", str(rig.folder / f"{BASE}.s2")]).out
    assert "nobody states one, and its bytes do not tell" in shown
    assert "yes: everybody was asked" in shown


def test_a_process_that_has_it_open(rig: Rig) -> None:
    left = rig.folder / f"{BASE}.s2"
    program = "import sys; f = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(left)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert orphans(rig) == {}
        assert f"(pid {process.pid})" in explain(rig, left.name)["uses"][0]["who"]
        process.communicate()
    assert orphans(rig) == {left.name: "unused"}


def test_a_file_that_only_a_snapshot_record_names(rig: Rig, connection: Any, off: Defined) -> None:
    """virsh's own snapshot, then the guest is pointed back to its old file: the record stays."""
    kept = rig.folder / "of-another.kept"
    text = f"<domainsnapshot><name>kept</name><disks><disk name='{DISK}'><source file='{kept}'/></disk></disks></domainsnapshot>"
    import libvirt

    old = off.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    off.domain.snapshotCreateXML(text, libvirt.VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY)
    connection.defineXML(old)
    assert f"{kept.name}" not in orphans(rig)
    assert explain(rig, kept.name)["uses"][0]["by"] == "record"


def test_what_is_no_image(rig: Rig, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("no", "fifo", "."):
        said = run_cli([*rig.road, "explain", str(tmp_path / name), "-o", "json"])
        assert said.code == 4
        assert '"NoSuchFile"' in said.err


def test_files_of_another_host() -> None:
    for command in (["orphans", "web1", "vda"], ["explain", "/share/x"]):
        said = run_cli(["-c", "qemu+ssh://compute7/system", *command, "-o", "json"])
        assert said.code == 4
        assert '"NotOnThisHost"' in said.err
