"""`orphans` and `explain` by a socket: nothing is ever called unused."""

from __future__ import annotations

from pathlib import Path

import pytest

from qmpsnap.cli import who_uses
from qmpsnap.monitor.virt import LibvirtUnreachable
from tests.rig.rig import BASE, DISK, run_cli
from tests.rig.roads import MakeRig


@pytest.fixture(autouse=True)
def no_libvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str, **_wishes: bool) -> None:
        raise LibvirtUnreachable(uri, "not there")

    monkeypatch.setattr(who_uses, "open_connection", fail)


def test_who_could_be_asked(make_rig: MakeRig) -> None:
    with make_rig("qcow2") as rig:
        rig.grow(3)
        (rig.folder / "left").write_bytes(b"\0")
        said = rig.cli("orphans", DISK, "-o", "json")
        found = {one["file"]: one["answer"] for one in said.json["files"]}
        assert found["left"] == "unknown"
        assert not {one for one in found if one.startswith(BASE)}
        gaps = " ".join(said.json["gaps"])
        assert "belong to no libvirt" in gaps
        assert "was not asked" in gaps
        assert "not known" in run_cli([*rig.road, "explain", str(rig.folder / "left")]).out


def test_whose_it_is(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        said = run_cli([*rig.road, "explain", str(rig.folder / BASE), "-o", "json"])
        (place,) = said.json["layers"]
        assert (place["disk"], place["position"], place["format"]) == (DISK, 1, "raw")
        assert said.json["answer"] == "used"


def test_a_recording_has_no_files(make_rig: MakeRig, tmp_path: Path) -> None:
    with make_rig("raw") as rig:
        assert rig.cli("record", str(tmp_path / "t")).code == 0
    for command in (["orphans", DISK], ["explain", "x"]):
        assert run_cli(["--replay", str(tmp_path / "t"), *command]).code == 4
