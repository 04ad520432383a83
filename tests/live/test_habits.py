"""`--all-disks`, `--no-wait`, `-o csv`, `$QMPSNAP_QMP` and `--log-json`, on real guests."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.rig import images
from tests.rig.disks import qcow2_chain, raw_disk
from tests.rig.libvirt_machine import LibvirtDisk
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, assert_sound, run_cli
from tests.rig.roads import MakeRig, Road, direct_rig, libvirt_rig


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


class TestNoWait:
    def test_it_is_left_and_finished(self, make_rig: MakeRig, road: Road) -> None:
        with make_rig("qcow2", 16 * MIB) as rig:
            rig.grow(3)
            rig.guest.write(DISK, 0, 8 * MIB, 7)
            assert rig.cli("create", DISK, "last").code == 0
            content = rig.guest.read_sha256(DISK)
            said = rig.cli("delete", DISK, "s2", "--no-wait", "--bandwidth", "1", "-o", "json")
            assert said.code == 0, said
            assert said.json["schema"] == "qmpsnap.started/1"
            assert (said.json["kind"], said.json["file"]) == ("commit", f"{BASE}.s2")
            assert f"{BASE}.s2" in rig.files()
            (job,) = rig.cli("job list", "-o", "json").json["jobs"]
            assert (job["disk"], job["status"]) == (DISK, "running")
            done = rig.cli("delete", DISK, "s2", "--bandwidth", "0")
            assert done.code == 0, done
            assert f"{BASE}.s2" not in rig.files()
            assert rig.guest.read_sha256(DISK) == content
            assert_sound(rig.disk())

    def test_what_is_nearly_done_is_seen_to_its_end(self, make_rig: MakeRig) -> None:
        with make_rig("qcow2") as rig:
            rig.grow(3)
            for name in ("s1", "s2"):  # a commit and an active one: there may be a job left
                first = rig.cli("delete", DISK, name, "--no-wait")
                assert first.code == 0, first
                if "started" in first.out:
                    assert rig.cli("delete", DISK, name).code == 0
            assert rig.files() == [BASE]
            assert_sound(rig.disk())

    @pytest.mark.parametrize("option", [["--verify"], ["--remove-file"], ["--timeout", "5"]])
    def test_what_needs_somebody_who_waits(self, option: list[str]) -> None:
        said = run_cli(["--qmp", "/no", "delete", DISK, "s1", "--no-wait", *option])
        assert said.code == 2
        assert "who waits" in said.err


def two_disks(road: Road, request: pytest.FixtureRequest, folder: Path) -> Any:
    """A guest with two disks that it can write, and one that it cannot."""
    for name in ("a", "b"):
        images.create_raw(folder / name, SIZE)
    images.create_raw(folder / "c", SIZE)
    if road == "qmp":
        return direct_rig(folder, [raw_disk(folder / f"{name}", f"vd{name}") for name in "ab"])
    connection = request.getfixturevalue("connection")
    disks = [LibvirtDisk(folder / name, "raw", f"vd{name}") for name in ("a", "b", "c")]

    def alter(domain: Any) -> None:
        from lxml.builder import E  # type: ignore[import-not-found]

        domain.findall("./devices/disk")[2].append(E.readonly())

    return libvirt_rig(connection, folder, "raw", disks, alter=alter)


def test_all_disks(road: Road, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with two_disks(road, request, tmp_path) as rig:
        planned = rig.cli("create", "--all-disks", "m", "--plan", "-o", "json")
        assert [one["disk"] for one in planned.json["disks"]] == ["vda", "vdb"]
        said = rig.cli("create", "--all-disks", "m", "-o", "json")
        assert said.code == 0, said
        assert said.json["file_format"] == {"a.m": "qcow2", "b.m": "qcow2"}
        assert rig.cli("create", "--all-disks").code == 0, "named by the time of day"
        depths = {one["disk"]: one["depth"] for one in rows_of(rig, "disks")}
        assert depths == {"vda": "3", "vdb": "3"} | ({"vdc": "1"} if "vdc" in depths else {})


def rows_of(rig: Rig, command: str, *arguments: str) -> list[dict[str, str]]:
    said = rig.cli(command, *arguments, "-o", "csv")
    assert said.code == 0, said
    return rows(said.out)


@pytest.mark.parametrize(
    "arguments", [["vda", "m", "--all-disks"], ["--all-disks", "--also", "vdb"], []]
)
def test_all_disks_or_some(arguments: list[str]) -> None:
    assert run_cli(["--qmp", "/no", "create", *arguments]).code == 2


def test_rows(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        chain = rows_of(rig, "chain")
        assert [one["file"] for one in chain] == [f"{BASE}.s2", f"{BASE}.s1", BASE]
        assert [one["virtual_size"] for one in chain] == [str(SIZE)] * 3
        assert "qmp=raw" in chain[2]["evidence"]
        assert [one["name"] for one in rows_of(rig, "list")] == ["s2", "s1"]
        assert rows_of(rig, "job list") == []
        said = rig.cli("verify", "-o", "csv")
        assert said.out == "severity,id,guest,disk,file,node,message,remedy\n"
        assert rig.cli("create", DISK, "-o", "csv").code == 2, "what was done is no row"


@pytest.mark.qemu
def test_socket_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images.create_raw(tmp_path / BASE, SIZE)
    disk = qcow2_chain([(tmp_path / BASE, "raw")], DISK, "1")
    with direct_rig(tmp_path, disk) as rig:
        monkeypatch.setenv("QMPSNAP_QMP", rig.road[1])
        assert run_cli(["chain", DISK]).code == 0
        assert run_cli(["create", DISK, "a"]).code == 0
        assert run_cli(["explain", str(tmp_path / BASE), "-o", "json"]).json["answer"] == "used"
        said = run_cli(["chain", "web1", "-c", "qemu+unix:///system?socket=/nowhere"])
        assert said.code == 7, "what stands on the command line counts"
        said = run_cli(["--qmp", "/nowhere", "chain"])
        assert (said.code, "/nowhere" in said.err) == (7, True)


def test_messages_as_json(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        said = rig.cli("delete", DISK, "s1", "--log-json")
        assert said.code == 0, said
        lines = [json.loads(line) for line in said.err.splitlines()]
        assert {line["schema"] for line in lines} == {"qmpsnap.message/1"}
        assert any("no longer used" in line["message"] for line in lines)
        said = rig.cli("delete", DISK, "s1", "--log-json")
        assert json.loads(said.err)["error"] == "SnapshotNotFound"
