"""What a message advises is run in the state in which it is printed, on both roads."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from qmpsnap.guests.libvirt.guest import LibvirtGuest
from qmpsnap.guests.qmp.guest import QmpGuest
from qmpsnap.operations.job.states import Verb
from tests.rig.agents import scripted_agent
from tests.rig.refusing import CREATE
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, MIB, SERIAL, SIZE, Rig, Said, run_cli
from tests.rig.roads import MakeRig, Road
from tests.rig.signals import calls
from tests.rig.situations import situation
from tests.rig.waiting import HANG_S


def refused(said: Said, error: str) -> str:
    """The way out of a command that was refused."""
    told = json.loads(said.err.splitlines()[-1])
    assert (said.code, told["error"]) == (4, error), said
    return str(told["remedy"])


def delete(rig: Rig, name: str, *options: str) -> Said:
    return rig.cli("delete", DISK, name, *options, "-o", "json")


def pull_all(rig: Rig, content: str) -> None:
    """`volume-snapshot-delete` with both names null."""
    said = rig.delete(None, None)
    assert said.code == 0, said
    assert len(rig.files()) == 1
    assert rig.guest.read_sha256(DISK) == content


def elsewhere(rig: Rig, tmp_path: Path, *names: str) -> str:
    """Snapshots in another folder than the base's; returns what the guest reads."""
    (tmp_path / "other").mkdir()
    for number, name in enumerate(names):
        rig.fill_layer(number)
        into = () if number else ("--into", str(tmp_path / "other"))
        assert rig.cli("create", DISK, name, *into).code == 0
    return rig.guest.read_sha256(DISK)


@situation(
    "Of two snapshots the older one is to be deleted, and the file below it lies in another folder",
    happens="a commit and a pull of it are refused; what both advise works",
    code=4,
    then="Pull the whole chain: `volume-snapshot-delete` with both names null.",
    kind=14,
)
@remedy("ForeignLayer", "DiskUnsuitable")
def test_commit_and_pull_do_not_name_each_other(make_rig: MakeRig, tmp_path: Path) -> None:
    """Of two snapshots the older one cannot be pulled by its name, and its base is elsewhere."""
    with make_rig("raw") as rig:
        content = elsewhere(rig, tmp_path, "s1", "s2")
        by_commit = refused(delete(rig, "s1", "--method", "commit"), "ForeignLayer")
        by_pull = refused(delete(rig, "s1", "--method", "pull"), "DiskUnsuitable")
        for way_out in (by_commit, by_pull):
            assert "--method" not in way_out
            assert "`volume-snapshot-delete` with both names null" in way_out
        pull_all(rig, content)


@remedy("ForeignLayer", "WouldHarm/foreign-layer")
@pytest.mark.parametrize("way", ["pull", "allow"])
def test_commit_into_another_folder(make_rig: MakeRig, tmp_path: Path, way: str) -> None:
    with make_rig("raw") as rig:
        content = elsewhere(rig, tmp_path, "s1")
        way_out = refused(delete(rig, "s1", "--method", "commit"), "ForeignLayer")
        assert "`--method pull` does it" in way_out
        options = ("--method", "pull") if way == "pull" else ("--allow", "foreign-layer")
        assert delete(rig, "s1", *options).code == 0
        assert rig.guest.read_sha256(DISK) == content


@remedy("DiskUnsuitable")
def test_pull_of_an_older_snapshot_that_can_be_committed(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        way_out = refused(delete(rig, "s1", "--method", "pull"), "DiskUnsuitable")
        assert "`--method commit`" in way_out
        assert delete(rig, "s1", "--method", "commit").code == 0
        assert rig.guest.read_sha256(DISK) == content


@remedy("WouldHarm/shared-base")
@pytest.mark.parametrize("depth", [2, 3])
def test_base_that_somebody_else_reads(make_rig: MakeRig, depth: int) -> None:
    with make_rig("raw") as rig:
        rig.grow(depth)
        content = rig.guest.read_sha256(DISK)
        with (rig.folder / BASE).open("rb") as base:
            reader = subprocess.Popen(["sleep", str(HANG_S)], stdin=base)
            try:
                way_out = refused(delete(rig, "s1", "--method", "commit"), "WouldHarm")
                assert ("`--method pull` does it" in way_out) == (depth == 2)
                if depth == 2:
                    assert delete(rig, "s1", "--method", "pull").code == 0
                    assert rig.guest.read_sha256(DISK) == content
                else:
                    pull_all(rig, content)
            finally:
                reader.kill()
                reader.wait()


@remedy("WouldHarm/grow-base")
def test_disk_that_was_grown_after_the_snapshot(road: Road, make_rig: MakeRig) -> None:
    with make_rig("qcow2") as rig:
        rig.grow(2)
        with rig.host() as host:
            layer = host.read().disks[0].layers[0]
        if road == "qmp":
            rig.guest.qmp("block_resize", {"node-name": layer.node, "size": 2 * SIZE})
        else:
            rig.guest.domain.blockResize(DISK, 2 * SIZE, 1)  # type: ignore[attr-defined]
        content = rig.guest.read_sha256(DISK)
        refused(delete(rig, "s1", "--method", "commit"), "WouldHarm")
        assert delete(rig, "s1", "--method", "pull").code == 0
        assert rig.guest.read_sha256(DISK) == content


@remedy("DiskBusy")
@pytest.mark.parametrize("way", ["cancel", "same"])
def test_disk_with_a_job(
    road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        interrupted(rig, road, monkeypatch, "--no-journal")
        refused(rig.cli("create", DISK, "new", "-o", "json"), "DiskBusy")
        if way == "cancel":
            said = rig.cli("job cancel", DISK)
            assert said.code == 0, said
            assert "is mixed with newer data" in said.err
        else:
            assert rig.delete(f"{BASE}.s1", BASE, "--bandwidth", "1G").code == 0
        assert rig.cli("create", DISK, "new").code == 0


@remedy("SnapshotNotFound", "DiskNotFound", "SnapshotExists", "JobNotFound", "BadSnapshotName")
def test_names(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        refused(delete(rig, "sunday"), "SnapshotNotFound")
        refused(rig.cli("create", "vdx", "-o", "json"), "DiskNotFound")
        refused(rig.cli("create", DISK, "s1", "-o", "json"), "SnapshotExists")
        refused(rig.cli("create", DISK, "a/b", "-o", "json"), "BadSnapshotName")
        assert rig.cli("job cancel", DISK).code == 4
        for look in ("list", "disks", "job list"):
            assert rig.cli(look).code == 0
        assert rig.cli("create", DISK, "another").code == 0
        assert rig.cli("create", DISK).code == 0  # by the time of day
        assert delete(rig, "s1").code == 0


@remedy("OverlayUnsuitable")
def test_new_file_that_is_there_and_something_else(make_rig: MakeRig) -> None:
    """It may be another guest's, so nothing says that it may be removed."""
    with make_rig("raw") as rig:
        there = rig.folder / f"{BASE}.new"
        there.write_bytes(b"x" * MIB)
        said = rig.cli(*CREATE)
        assert said.code == 4
        assert "Choose another name" in said.err
        assert "emove it" not in said.err
        assert there.read_bytes() == b"x" * MIB
        rig.create("another")


@remedy("NothingToPull", "NotInChain", "WrongOrder")
def test_merges_that_there_are_not(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        for top, base in ((f"{BASE}.s1", None), (f"{BASE}.x", BASE), (BASE, f"{BASE}.s1")):
            assert rig.delete(top, base).code == 4
        assert rig.cli("chain").code == 0
        assert rig.delete(f"{BASE}.s1", BASE).code == 0  # the upper one first


@remedy("CannotFreeze")
@pytest.mark.parametrize("way", ["run", "try"])
def test_freeze_of_a_guest_that_is_paused(
    road: Road, make_rig: MakeRig, tmp_path: Path, way: str
) -> None:
    """Its agent cannot answer, whether there is one or not."""
    if road == "libvirt" and way == "run":
        pytest.skip("needs a guest agent: tests/guest")
    with make_rig("raw") as rig, scripted_agent(tmp_path) as agent:
        freeze = ("--quiesce", "require", "--freeze-timeout", str(HANG_S))
        with_agent = ("--agent", agent.path) if road == "qmp" else ()
        words = ("create", DISK, "s1", "-o", "json", *with_agent)
        way_out = refused(rig.cli(*words, *freeze), "CannotFreeze")
        assert "qemu-guest-agent" not in way_out
        assert "QMP `cont`" in way_out
        if way == "run":
            rig.guest.qmp("cont")
            assert rig.cli(*words, *freeze).code == 0
            assert agent.heard == ["freeze", "thaw"]
        else:
            assert rig.cli(*words, "--quiesce", "try").code == 0


@remedy("WouldHarm/bitmaps")
def test_bitmap_in_a_file_that_leaves_the_chain(road: Road, make_rig: MakeRig) -> None:
    """By QMP it would be lost; libvirt takes those of its checkpoints along."""
    with make_rig("qcow2") as rig:
        rig.grow(2)
        node = rig.disk().layers[0].node
        if road == "libvirt":
            text = "<domaincheckpoint><name>cp0</name></domaincheckpoint>"
            rig.guest.domain.checkpointCreateXML(text, 0)  # type: ignore[attr-defined]
            assert rig.create("s2").code == 0
            assert delete(rig, "s2", "--method", "commit").code == 0
            names = rig.disk().layers[0].node_details
            assert names is not None
            assert "cp0" in names.bitmaps
            return
        rig.guest.qmp("block-dirty-bitmap-add", {"node": node, "name": "b"})
        way_out = refused(delete(rig, "s1", "--method", "commit"), "WouldHarm")
        assert "QMP `block-dirty-bitmap-remove`" in way_out
        rig.guest.qmp("block-dirty-bitmap-remove", {"node": node, "name": "b"})
        assert delete(rig, "s1", "--method", "commit").code == 0


@remedy("BadFileName", "BadFolder", "BadRequest", "BadSnapshotName")
def test_arguments_that_are_no_good(make_rig: MakeRig) -> None:
    """Empty ones are what a shell makes of a variable that is not set."""
    with make_rig("raw") as rig:
        way_out = refused(rig.cli("create", DISK, "y", "--into", "", "-o", "json"), "BadFolder")
        assert "Give the whole path of a folder" in way_out
        refused(rig.cli("create", DISK, "", "-o", "json"), "BadSnapshotName")
        assert [rig.cli(command, "").code for command in ("chain", "list", "verify")] == [4, 4, 4]
        assert rig.cli("create", DISK, "y", "--into", str(rig.folder)).code == 0
        for info in (
            {"type": "qcow2", "new_file": "../x", "snapshot_id": "1"},
            {"type": "raw", "new_file": f"{BASE}.x", "snapshot_id": "1"},
        ):
            assert rig.cli("volume-snapshot-create", SERIAL, json.dumps(info)).code == 4
        rig.create("x")


def interrupted(rig: Rig, road: Road, monkeypatch: pytest.MonkeyPatch, *options: str) -> None:
    """Leave a commit that copies one byte a second."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        calls(patched, QmpGuest if road == "qmp" else LibvirtGuest, interrupt, ("wait",))
        said = rig.delete(f"{BASE}.s1", BASE, "--bandwidth", "1", *options)
        assert said.code == 6, said


@remedy("OperationOpen")
def test_operation_that_is_open(
    road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        interrupted(rig, road, monkeypatch)
        way_out = refused(rig.cli("create", DISK, "new", "-o", "json"), "OperationOpen")
        with rig.host() as host:
            (job,) = host.jobs()
            host.take(host.compose.verb(Verb.SET_SPEED, job.id, 0))
        command = way_out.partition("`qmpsnap ")[2].partition("`")[0].split()
        assert command[0] == "resume"
        said = run_cli([*rig.road, *command])
        assert said.code == 0, said
        assert rig.cli("create", DISK, "new").code == 0


@remedy("TimedOut")
def test_time_that_was_too_short(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        assert rig.delete(f"{BASE}.s1", BASE, "--bandwidth", "1", "--timeout", "0.2").code == 5
        assert rig.delete(f"{BASE}.s1", BASE).code == 0
        assert rig.guest.read_sha256(DISK) == content


@remedy("DiskTwice")
def test_disk_that_is_named_twice(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        refused(rig.cli("create", DISK, "s1", "--also", SERIAL, "-o", "json"), "DiskTwice")
        assert rig.cli("create", DISK, "s1").code == 0


@remedy("GuestMayWrite")
@pytest.mark.parametrize("way", ["pause", "without"])
def test_proof_of_a_guest_that_writes(road: Road, make_rig: MakeRig, way: str) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        if road == "qmp":
            rig.guest.qmp("cont")
        else:
            rig.guest.domain.resume()  # type: ignore[attr-defined]
        words = ("s1", "--method", "commit")
        refused(delete(rig, *words, "--verify"), "GuestMayWrite")
        if way == "without":
            assert delete(rig, *words).code == 0
        else:
            if road == "qmp":
                rig.guest.qmp("stop")
            else:
                rig.guest.domain.suspend()  # type: ignore[attr-defined]
            assert delete(rig, *words, "--verify").code == 0


@remedy("PauseUnsupported", "NotByLibvirt")
def test_what_libvirt_cannot(
    road: Road, make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    if road == "qmp":
        pytest.skip("QEMU can")
    with make_rig("raw") as rig:
        rig.grow(3)
        refused(delete(rig, "s1", "--on-error", "pause"), "PauseUnsupported")
        interrupted(rig, road, monkeypatch, "--no-journal")
        said = rig.cli("job pause", DISK)
        assert said.code == 4
        assert rig.cli("job set-speed", DISK, "2").code == 0
        assert rig.cli("job cancel", DISK).code == 0
        assert delete(rig, "s1").code == 0
