"""What only libvirt has: passthrough that is off, a full file system, a guest that is off."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.monitor import virt
from tests.rig import images
from tests.rig.guards import resize
from tests.rig.libvirt_machine import LibvirtMachine
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, Said, assert_sound, run_cli
from tests.rig.roads import MakeRig, libvirt_rig
from tests.rig.situations import situation


def _by_xml(rig: Rig, option: str, command: str, *arguments: str) -> Said:
    return run_cli([*rig.road, option, command, *rig.names, *arguments])


class TestWithoutPassthrough:
    def test_the_report_says_why_and_states_by_xml(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            rig.grow(3)
            said = _by_xml(rig, "--no-passthrough", "chain", "-o", "json")
            assert "XML alone" in said.err
            layers = said.json["disks"][0]["layers"]
            assert [layer["format"] for layer in layers] == ["qcow2", "qcow2", "raw"]
            assert {layer["verdict"] for layer in layers} == {"stated"}
            assert layers[0]["virtual_size"] == rig.guest.virtual_size(DISK)

    def test_the_report_says_that_the_guest_would_stall(self, make_rig: MakeRig) -> None:
        # libvirt 11.3 opens a raw disk as one node, and a listing of one does not stop a guest.
        with make_rig("qcow2") as rig:
            said = run_cli(["--max-stall=0", *rig.road, "chain", *rig.names, "-o", "json"])
            assert said.code == 0, said
            (note,) = said.json["notes"]
            assert "by XML alone" in note
            assert "would stop it for" in note
            (layer,) = said.json["disks"][0]["layers"]
            assert (layer["format"], layer["verdict"]) == ("qcow2", "stated")

    @pytest.mark.parametrize("option", ["--no-passthrough", "--max-stall=0"])
    def test_the_operations_work_all_the_same(self, make_rig: MakeRig, option: str) -> None:
        with make_rig("raw") as rig:
            rig.guest.write(DISK, 0, 65536, 1)
            content = rig.guest.read_sha256(DISK)
            for name in ("a", "b", "c"):
                said = _by_xml(rig, option, "create", DISK, name)
                assert said.code == 0, said
            said = _by_xml(rig, option, "delete", DISK, "a", "-o", "json")  # commit
            assert said.json["file_format"] == {BASE: "raw"}, said
            said = _by_xml(rig, option, "delete", DISK, "c", "-o", "json")  # active commit
            assert said.json["file_format"] == {f"{BASE}.b": "qcow2"}, said
            said = _by_xml(rig, option, "delete", DISK, "b", "--method", "pull", "-o", "json")
            assert said.json["file_format"] == {f"{BASE}.b": "qcow2"}, said
            assert rig.files() == [f"{BASE}.b"]
            assert rig.guest.read_sha256(DISK) == content

    def test_lengths_count_all_the_same(self, make_rig: MakeRig) -> None:
        """Of a raw base the file tells its length."""
        with make_rig("raw") as rig:
            rig.guest.write(DISK, 0, SIZE, 1)
            rig.create("s1")
            resize(rig, SIZE // 2)
            said = _by_xml(rig, "--no-passthrough", "delete", DISK, "s1", "--method", "commit")
            assert said.code == 4, said
            assert f"{BASE} goes on to {SIZE}" in said.err
            resize(rig, 2 * SIZE)
            said = _by_xml(rig, "--no-passthrough", "delete", DISK, "s1", "--method", "commit")
            assert said.code == 4, said
            assert "--allow grow-base" in said.err

    def test_the_guest_is_not_tainted(self, make_rig: MakeRig) -> None:
        with make_rig("raw") as rig:
            assert isinstance(rig.guest, LibvirtMachine)
            assert _by_xml(rig, "--no-passthrough", "create", DISK, "a").code == 0
            assert _by_xml(rig, "--no-passthrough", "delete", DISK, "a").code == 0
            messages = rig.guest.domain.messages(0)
            assert not any("custom monitor" in message for message in messages), messages


@pytest.fixture
def full_share(tmp_path: Path) -> Iterator[Path]:
    """A file system with 12 MiB."""
    folder = tmp_path / "share"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@situation(
    "The target's file system has too little room for the merge",
    happens="refused beforehand; with `--force` the job fails, and the chain is as it was",
    code=4,
    then="Make room, then give the same command again.",
    pain=6,
)
@pytest.mark.parametrize("kind", ["commit", "pull"])
def test_a_full_file_system_is_no_success(connection: Any, full_share: Path, kind: str) -> None:
    images.create_raw(full_share / BASE, 32 * MIB)
    with libvirt_rig(connection, full_share, "raw") as rig:
        if kind == "pull":
            rig.guest.write(DISK, 0, 7 * MIB, 1)
        rig.create("s1")
        if kind == "commit":
            rig.guest.write(DISK, 0, 7 * MIB, 1)
        rig.create("s2")
        before = rig.files()
        target = BASE if kind == "commit" else None
        top = f"{BASE}.s1" if target else None
        refused = rig.delete(top, target)
        assert refused.code == 4, refused
        assert "may grow by" in refused.err
        said = rig.delete(top, target, "--force")
        assert said.code == 5, said
        assert "No space left" in said.err
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        assert rig.files() == before
        assert_sound(rig.disk())
        printed = rig.guest.qemu_io(DISK, f"read -P 1 0 {7 * MIB}")
        assert "failed" not in printed


@situation(
    "No space for a new overlay",
    happens="nothing is left behind; the guest is not touched",
    code=1,
    then="Make room, then give the same command again.",
    pain=6,
)
def test_a_full_file_system_leaves_no_half_made_overlay(connection: Any, full_share: Path) -> None:
    images.create_raw(full_share / BASE, 32 * MIB)
    with libvirt_rig(connection, full_share, "raw") as rig:
        filler = full_share / "filler"
        room = os.statvfs(full_share)
        with filler.open("wb", buffering=0) as file:
            file.write(b"x" * (room.f_bavail * room.f_bsize))
        said = rig.cli("create", DISK, "new")
        assert said.code == 1, said
        assert "No space left" in said.err
        assert rig.files() == [BASE]
        assert {path.name for path in full_share.iterdir()} == {BASE, "filler"}


def test_a_guest_that_is_off(connection: Any, make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.kill()
        said = rig.cli("chain")
        assert said.code == 7, said
        assert said.out == ""


@situation(
    "No guest has this name",
    happens="nothing is sent; the message lists the guests",
    code=7,
    then="Name one of them.",
)
def test_a_guest_that_nobody_knows(connection: Any, make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        known = rig.names[0]
        rig.names[:] = ["nobody"]
        said = rig.cli("volume-snapshot-delete", "1", "2", "{}")
        assert said.code in (4, 7)
        assert said.status == {"status": "error_deleting", "progress": "0%"}
        said = rig.cli("disks")
        assert said.code == 7
        assert known in said.err


@situation(
    "A snapshot was taken by QMP behind libvirt's back",
    happens="reported as a conflict with both chains; operations are refused",
    code=4,
    then="Restart the guest with the right files before anything else.",
    pain=2,
)
def test_a_snapshot_behind_libvirts_back_is_seen(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        overlay = rig.folder / "behind"
        images.create_qcow2(overlay, rig.guest.virtual_size(DISK), BASE, "raw")
        node = rig.guest.active_node(DISK)
        rig.guest.qmp(
            "blockdev-add",
            {
                "driver": "qcow2",
                "node-name": "behind",
                "file": {"driver": "file", "filename": str(overlay)},
                "backing": None,
            },
        )
        snapshot = {"node": node, "overlay": "behind"}
        action = {"type": "blockdev-snapshot", "data": snapshot}
        rig.guest.qmp("transaction", {"actions": [action]})
        said = rig.cli("chain", "-o", "json")
        assert "behind" in said.json["disks"][0]["xml_differs"]
        assert rig.cli("create", DISK, "new").code == 4
        assert not (rig.folder / f"{BASE}.new").exists()
        assert read_header(str(overlay)).backing_format == "raw"


def test_without_the_passthrough_module(make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some distributions package `libvirt_qemu` apart."""
    with make_rig("raw") as rig:
        rig.grow(2)
        monkeypatch.setitem(sys.modules, "libvirt_qemu", None)
        virt.libvirt_module.cache_clear()
        try:
            said = rig.cli("chain", "-o", "json")
            assert "libvirt_qemu is not installed" in said.err
            assert said.json["disks"][0]["layers"][1]["verdict"] == "stated"
            assert rig.cli("delete", DISK, "s1").code == 0
        finally:
            monkeypatch.undo()
            virt.libvirt_module.cache_clear()


def test_the_demo_tells_its_story_twice() -> None:
    done = subprocess.run([sys.executable, "-m", "qmpsnap", "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("The guest reads the same before and after") == 8
    assert "raw (by qmp xml header)" in done.stdout
    assert "Done on both roads" in done.stdout


def test_a_ready_active_commit_is_taken_up(make_rig: MakeRig) -> None:
    """Its event is long gone; libvirt does not repeat it."""
    with make_rig("raw") as rig:
        assert isinstance(rig.guest, LibvirtMachine)
        rig.grow(2)
        content = rig.guest.read_sha256(DISK)
        index = rig.disk().layers[1].index
        flags = virt.libvirt_module().VIR_DOMAIN_BLOCK_COMMIT_ACTIVE
        rig.guest.domain.blockCommit(DISK, f"{DISK}[{index}]", None, 0, flags)
        while "ready='yes'" not in rig.guest.domain.XMLDesc(0):
            pass
        said = rig.cli("delete", DISK, "s1")
        assert said.code == 0, said
        assert rig.files() == [BASE]
        assert rig.guest.read_sha256(DISK) == content


def test_guest_of_another_host_is_looked_at_only(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_rig("qcow2") as rig:
        rig.grow(2)
        monkeypatch.setattr("qmpsnap.guests.libvirt.guest.host_of", lambda _uri: "far.example.org")
        said = rig.cli("chain", "-o", "json")
        details = [one["detail"] for one in said.json["disks"][0]["layers"][1]["evidence"]]
        assert f"header of {BASE}.s1, as QEMU opened it" in details
        for refused in (rig.cli("create", DISK, "a"), rig.delete(f"{BASE}.s1", BASE)):
            assert refused.code == 4
            assert "far.example.org" in refused.err
        assert sorted(path.name for path in rig.folder.iterdir()) == [BASE, f"{BASE}.s1"]
