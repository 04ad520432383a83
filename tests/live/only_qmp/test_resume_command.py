"""`qmpsnap resume` as a person gives it, after `kill -9` of a real command, and of QEMU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qmpsnap.guests.files import qemu_img
from qmpsnap.journal.file import Journal
from qmpsnap.journal.keep import created, deleted
from qmpsnap.operations.requests import CreateRequest, Method, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.disks import qcow2_chain, raw_disk
from tests.rig.doors import Killed, dying_at
from tests.rig.plugging import Direct, direct_plugged
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, DISK, SERIAL, SIZE, Rig, run_cli
from tests.rig.roads import MakeRig, direct_rig
from tests.rig.state_folder import own_state
from tests.rig.waiting import until

NEW = CreateRequest(disk=DISK, new_file=f"{BASE}.new", snapshot="new")


@pytest.fixture(autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Journal:
    own_state(tmp_path_factory, monkeypatch)
    return Journal()


def intents(journal: Journal) -> list[str]:
    store = journal.looked_into() if journal.path.exists() else None
    if store is None:
        return []
    with store:
        return [act.does for entry in store.open_entries() for act in entry.acts]


@contextmanager
def merging(rig: Rig, journal: Journal) -> Iterator[subprocess.Popen[bytes]]:
    """A command that merges one byte a second."""
    command = [*rig.road, "delete", DISK, "s1", "--bandwidth", "1"]
    with subprocess.Popen([sys.executable, "-m", "qmpsnap", *command]) as process:
        try:
            until(lambda: "start" in intents(journal) and bool(rig.guest.qmp("query-jobs")))
            yield process
        finally:
            process.kill()


def test_killed_in_the_middle_of_a_job(make_rig: MakeRig, journal: Journal) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        with merging(rig, journal):
            pass
        (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
        assert entry["outcome"] == "open"
        said = rig.cli("create", DISK, "other")
        assert said.code == 4, said
        assert f"qmpsnap resume {entry['id']}" in said.err
        planned = run_cli(["resume", "--plan", "-o", "json"]).json["operations"]
        assert [(one["outcome"], one["planned"]) for one in planned] == [("finished", True)]
        assert rig.files() == [f"{BASE}.s2", f"{BASE}.s1", BASE]
        (job,) = rig.cli("job", "list", "-o", "json").json["jobs"]
        assert rig.cli("job", "set-speed", job["id"], "0").code == 0
        said = run_cli(["resume", entry["id"], "-o", "json"])
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert one == {
            "id": entry["id"],
            "kind": "commit",
            "guest": None,
            "disk": DISK,
            "outcome": "finished",
            "active": str(rig.folder / f"{BASE}.s2"),
            "candidates": [],
            "file_format": {BASE: "raw"},
            "status": {
                "os-update_snapshot_status": {
                    "status": "deleting_compute_complete",
                    "progress": "90%",
                    "file_format": {BASE: "raw"},
                }
            },
            "notes": one["notes"],
            "planned": False,
        }
        assert rig.files() == [f"{BASE}.s2", BASE]
        assert rig.guest.read_sha256(DISK) == content
        again = run_cli(["resume", entry["id"], "-o", "json"])
        assert (again.code, again.json["operations"][0]["outcome"]) == (0, "nothing-to-do")
        (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
        assert (entry["outcome"], entry["resumed"]) == ("finished", True)


def test_the_same_command_takes_the_job_up_again(make_rig: MakeRig, journal: Journal) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        with merging(rig, journal):
            pass
        said = rig.cli("delete", DISK, "s1", "--bandwidth", "0", "-o", "json")
        assert said.code == 0, said
        (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
        assert (entry["id"], entry["outcome"]) == (said.json["id"], "finished")


def jobs_of(rig: Rig) -> list[dict[str, str]]:
    found = rig.guest.qmp("query-jobs")
    assert isinstance(found, list)
    return found


@remedy("OperationBusy")
@pytest.mark.parametrize("way", ["it ends", "it is ended"])
def test_while_it_is_carried_out(make_rig: MakeRig, journal: Journal, way: str) -> None:
    """Nobody else goes on with it; whoever looks is told who does."""
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        with merging(rig, journal) as process:
            said = run_cli(["resume", "-o", "json"])
            assert said.code == 6, said
            (one,) = said.json["operations"]
            assert one["outcome"] == "unknown"
            assert f"process {process.pid}" in one["notes"][0]
            assert f"`qmpsnap resume {one['id']}`" in one["notes"][0]
            assert run_cli(["log", "-o", "json"]).json["operations"][0]["outcome"] == "open"
            (job,) = jobs_of(rig)
            if way == "it is ended":
                process.kill()
                process.wait()
            rig.guest.qmp("block-job-set-speed", {"device": job["id"], "speed": 0})
            if way == "it ends":
                assert process.wait() == 0
                assert run_cli(["resume"]).out == "nothing is open\n"
            else:
                assert run_cli(["resume", one["id"]]).code == 0
            assert rig.files() == [f"{BASE}.s2", BASE]
            assert rig.guest.read_sha256(DISK) == content


def killed_after_the_switch(rig: Rig, journal: Journal) -> str:
    """The tool dies when the guest is on its new file, then the guest writes, and QEMU dies."""
    with rig.host() as host, pytest.raises(Killed):
        created(journal, dying_at(host, Does.SWITCH, "after"), (NEW,))
    rig.guest.write(DISK, 0, 65536, 77)
    rig.guest.qemu_io(DISK, "flush")
    content = rig.guest.read_sha256(DISK)
    rig.kill()
    return content


def killed_when_the_job_had_ended(rig: Rig, journal: Journal, method: Method) -> None:
    """The tool dies before it hears of the end, and nobody has dismissed the job."""
    request = NamedDeleteRequest(disk=DISK, snapshot="s1", method=method)
    with rig.host() as host, pytest.raises(Killed):
        deleted(journal, dying_at(host, Does.COMMIT, "after"), request)
    until(lambda: {one["status"] for one in jobs_of(rig)} == {"concluded"})


def test_a_marker_says_it_while_the_state_lasts(make_rig: MakeRig, journal: Journal) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        content = killed_after_the_switch(rig, journal)
        (marker,) = rig.folder.glob(".qmpsnap-*")
        assert json.loads(marker.read_text())["state"] == "switch"
        said = run_cli(["resume", "-o", "json"])
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert one["outcome"] == "finished"
        assert one["active"] == str(rig.folder / f"{BASE}.new")
        assert images.sha256_of(one["active"], "qcow2") == content
        assert not marker.exists()


def test_by_the_marker_alone(make_rig: MakeRig, journal: Journal) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        killed_after_the_switch(rig, journal)
        (marker,) = rig.folder.glob(".qmpsnap-*")
        for path in journal.path.parent.glob(f"{journal.path.name}*"):  # with its log
            path.unlink()
        assert run_cli(["resume", "-o", "json"]).json["operations"] == []
        said = run_cli(["resume", str(marker), "-o", "json"])
        assert said.code == 0, said
        assert said.json["operations"][0]["active"] == str(rig.folder / f"{BASE}.new")
        assert not marker.exists()


@pytest.mark.parametrize("kind", ["create", "pull"])
def test_another_guest_has_the_socket_now(
    make_rig: MakeRig, journal: Journal, tmp_path: Path, kind: str
) -> None:
    """It tells nothing of the one that is gone; the headers do."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images.create_raw(elsewhere / "other", 65536)
    with make_rig("raw") as rig:
        rig.grow(2)
        if kind == "create":
            content, active = killed_after_the_switch(rig, journal), rig.folder / f"{BASE}.new"
        else:
            content, active = rig.guest.read_sha256(DISK), rig.folder / f"{BASE}.s1"
            request = NamedDeleteRequest(disk=DISK, snapshot="s1", method="pull")
            with rig.host() as host, pytest.raises(Killed):
                deleted(journal, dying_at(host, Does.COMMIT, "after"), request)
            rig.kill()
        socket = Path(rig.road[1])
        with direct_rig(elsewhere, raw_disk(elsewhere / "other", DISK, SERIAL)) as other:
            socket.unlink(missing_ok=True)
            socket.symlink_to(other.road[1])
            said = run_cli(["resume", "-o", "json"])
            socket.unlink()
        assert said.code == 0, said
        (one,) = said.json["operations"]
        assert (one["active"], one["outcome"]) == (
            str(active),
            "finished" if kind == "create" else "rolled-back",
        )
        assert images.sha256_of(active, "qcow2") == content


def test_asked_again_by_the_socket(make_rig: MakeRig, journal: Journal) -> None:
    """What has ended has ended, whoever is asked."""
    with make_rig("raw") as rig:
        rig.grow(2)
        request = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")
        with rig.host() as host, pytest.raises(Killed):
            deleted(journal, dying_at(host, Does.COMMIT, "after"), request)
        (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
        until(lambda: run_cli(["resume"]).code == 0)
        said = rig.cli("resume", entry["id"], "-o", "json")
        assert (said.code, said.json["operations"][0]["outcome"]) == (0, "nothing-to-do"), said


@pytest.mark.parametrize("what", ["the base is gone", "version 2"])
def test_a_pull_that_nobody_can_know_is_decided_by_a_person(
    make_rig: MakeRig, journal: Journal, what: str
) -> None:
    with make_rig("raw") as rig:
        rig.guest.qemu_io(DISK, "write -P 1 0 64k")
        rig.guest.qemu_io(DISK, "flush")
        overlay = rig.folder / f"{BASE}.s1"
        compat = "0.10" if what == "version 2" else "1.1"
        options = ("-f", "qcow2", "-o", f"compat={compat}", "-b", BASE, "-F", "raw")
        qemu_img.run("create", str(overlay), *options, str(overlay), str(SIZE))
        assert rig.cli("create", DISK, "s1").code == 0
        content = rig.guest.read_sha256(DISK)
        killed_when_the_job_had_ended(rig, journal, "pull")
        rig.guest.qemu_io(DISK, "flush")
        rig.kill()
        if what == "the base is gone":
            (rig.folder / BASE).rename(rig.folder / "elsewhere")
        said = run_cli(["resume"])
        assert said.code == 6, said
        (way_out,) = re.findall(rf"if {overlay} is right: qmpsnap (.*)", said.out)
        operation = way_out.split()[1]
        refused = run_cli(["resume", operation, "--take", "base"])
        assert (refused.code, f"{overlay} alone can be right" in refused.err) == (4, True), refused
        said = run_cli(way_out.split())
        assert said.code == 0, said
        assert images.sha256_of(overlay, "qcow2") == content
        with direct_rig(rig.folder, qcow2_chain([(overlay, "qcow2")], DISK, SERIAL)) as again:
            assert again.cli("create", DISK, "s2").code == 0


def test_the_base_of_a_commit_that_resume_has_finished_takes_the_next(
    make_rig: MakeRig, journal: Journal
) -> None:
    """
    What is flushed after a job must leave it possible to open the base for writing again.

    It was opened for writing at the start, as README does, without auto-read-only.
    """
    with make_rig("raw") as rig:
        rig.grow(3)
        content = rig.guest.read_sha256(DISK)
        killed_when_the_job_had_ended(rig, journal, "commit")
        assert run_cli(["resume"]).code == 0
        said = rig.cli("delete", DISK, "s2", "--method", "commit")
        assert said.code == 0, said
        assert rig.files() == [BASE]
        assert rig.guest.read_sha256(DISK) == content


def test_somebody_has_started_the_guest_from_the_old_file(
    make_rig: MakeRig, journal: Journal
) -> None:
    """Nothing is removed, whichever of the two is right."""
    with make_rig("raw") as rig:
        rig.grow(2)
        killed_after_the_switch(rig, journal)
        files = [(rig.folder / f"{BASE}.s1", "qcow2"), (rig.folder / BASE, "raw")]
        with direct_rig(rig.folder, qcow2_chain(files, DISK, SERIAL)) as other:
            said = run_cli([*other.road, "resume", "-o", "json"])
            assert said.code == 6, said
            (one,) = said.json["operations"]
            assert one["outcome"] == "unknown"
            assert "started the guest from the old file" in one["notes"][0]
            assert other.cli("create", DISK, "other").code == 4
        assert (rig.folder / f"{BASE}.new").exists()


def test_the_marker_forbids_another_guest_the_files(
    make_rig: MakeRig,
    journal: Journal,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two hosts: each has a state folder of its own, and they have the share in common."""
    with make_rig("raw") as rig:
        killed_after_the_switch(rig, journal)
        elsewhere = tmp_path_factory.mktemp("elsewhere")
        elsewhere.chmod(0o700)
        monkeypatch.setenv("QMPSNAP_STATE", str(elsewhere))
        with direct_rig(rig.folder, raw_disk(rig.folder / BASE, DISK, SERIAL)) as other:
            said = other.cli("create", DISK, "other")
            assert said.code == 4, said
            assert "the marker" in said.err
            for told in (said.err, other.cli("list").err):
                (command,) = re.findall(r"`qmpsnap (resume [^`]*)`", told)
                said = run_cli([*command.split(), "--plan", "-o", "json"])
                assert len(said.json["operations"]) == 1, said
            said = run_cli([*other.road, "resume", "-o", "json"])
            assert (said.code, len(said.json["operations"])) == (6, 1)


def test_a_file_in_the_place_of_one_that_left_is_not_removed(
    make_rig: MakeRig, journal: Journal
) -> None:
    """The plan has no number of a file system; the file is known again by what does not change."""
    request = NamedDeleteRequest(disk=DISK, snapshot="s1")
    with make_rig("raw") as rig:
        rig.grow(3)
        with rig.host() as host, pytest.raises(Killed):
            deleted(journal, dying_at(host, Does.REMOVE), request, remove=True)
        path = rig.folder / f"{BASE}.s1"
        path.rename(rig.folder / "kept")
        path.write_text("of somebody else")
        said = run_cli(["resume", "-o", "json"])
        assert said.code == 0, said
        assert "was not removed" in " ".join(said.json["operations"][0]["notes"])
        assert path.read_text() == "of somebody else"


def test_by_the_socket_while_an_ended_stream_waits(make_rig: MakeRig, journal: Journal) -> None:
    """That has to be dismissed before QEMU may be asked for its nodes; `--plan` does not."""
    with make_rig("raw") as rig:
        rig.grow(2)
        content = rig.guest.read_sha256(DISK)
        killed_when_the_job_had_ended(rig, journal, "pull")
        version: Any = rig.guest.qmp("query-version")
        # QEMU 7.2 may not be asked for its nodes then; 10.0 may.
        expected = 4 if version["qemu"]["major"] < 8 else 0
        assert rig.cli("resume", "--plan").code == expected
        assert [one["status"] for one in jobs_of(rig)] == ["concluded"]
        said = rig.cli("resume", "-o", "json")
        assert said.code == 0, said
        assert said.json["operations"][0]["outcome"] == "finished"
        assert jobs_of(rig) == []
        assert rig.guest.read_sha256(DISK) == content


def test_unplugged_in_the_middle(journal: Journal, share: Path) -> None:
    """Its socket still names the operation, though the guest has none of its files any more."""
    with killed_with_its_job(journal, share) as guest:
        guest.unplug()
        said = guest.rig.cli("resume", "-o", "json")
        (one,) = said.json["operations"]
        assert (said.code, one["outcome"], one["disk"]) == (6, "unknown", DISK)
        assert "there is no disk 'vda'" in one["notes"][0]
        assert guest.rig.cli("resume", one["id"]).code == 6
        (job,) = jobs_of(guest.rig)
        guest.rig.guest.qmp("job-cancel", {"id": job["id"]})
        until(lambda: {one["status"] for one in jobs_of(guest.rig)} == {"concluded"})
        guest.rig.guest.qmp("job-dismiss", {"id": job["id"]})
        guest.close_files()
        guest.plug(share / f"{BASE}.s1")
        said = guest.rig.cli("resume", "-o", "json")
        assert (said.code, said.json["operations"][0]["outcome"]) == (0, "rolled-back"), said


def test_another_volume_with_the_same_names_of_files(journal: Journal, share: Path) -> None:
    """The job goes on, on files that no disk has; what has the disk's name now is not merged."""
    other = share / "other"
    other.mkdir()
    images.create_qcow2(other / BASE, SIZE)
    images.create_qcow2(other / f"{BASE}.s1", SIZE, BASE, "qcow2")
    with killed_with_its_job(journal, share) as guest:
        guest.unplug()
        guest.plug(other / f"{BASE}.s1")
        before = guest.rig.files()
        said = run_cli(["resume", "-o", "json"])
        (one,) = said.json["operations"]
        assert (said.code, one["outcome"]) == (6, "unknown"), said
        assert "vda is another disk by now" in one["notes"][0]
        assert guest.rig.files() == before == [f"{BASE}.s1", BASE]


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """A folder with a volume of two layers."""
    folder = tmp_path / "share"
    folder.mkdir()
    images.create_qcow2(folder / BASE, SIZE)
    images.create_qcow2(folder / f"{BASE}.s1", SIZE, BASE, "qcow2")
    return folder


@contextmanager
def killed_with_its_job(journal: Journal, share: Path) -> Iterator[Direct]:
    """An active commit whose job is there, and waits for its pivot when all is copied."""
    request = NamedDeleteRequest(disk=DISK, snapshot="s1", method="commit")
    with direct_plugged(share) as guest:
        with guest.rig.host() as host, pytest.raises(Killed):
            deleted(journal, dying_at(host, Does.START, "after"), request)
        yield guest


def test_looks_tell_of_it(make_rig: MakeRig, journal: Journal) -> None:
    with make_rig("raw") as rig:
        rig.grow(2)
        with rig.host() as host, pytest.raises(Killed):
            created(journal, dying_at(host, Does.SWITCH, "after"), (NEW,))
        (marker,) = rig.folder.glob(".qmpsnap-*")
        for command in ("chain", "disks", "list"):
            said = rig.cli(command, "-o", "json")
            assert said.code == 0, said
            assert f"`qmpsnap resume {marker}` settles it" in said.err
        said = rig.cli("verify", "-o", "json")
        assert said.code == 3, said
        (finding,) = said.json["findings"]
        assert (finding["id"], finding["severity"]) == ("operation-open", "warning")
        assert run_cli(["resume"]).code == 0
        assert rig.cli("verify").code == 0


class TestUsage:
    def test_no_operation(self) -> None:
        said = run_cli(["resume", "web1"])
        assert said.code == 2
        assert "`qmpsnap job resume`" in said.err

    def test_no_marker(self, tmp_path: Path) -> None:
        assert run_cli(["resume", str(tmp_path / ".qmpsnap-x")]).code == 2

    def test_a_marker_that_is_not_acted_on(self, tmp_path: Path) -> None:
        (tmp_path / ".qmpsnap-x").write_text("{}")
        said = run_cli(["resume", str(tmp_path / ".qmpsnap-x")])
        assert said.code == 4
        assert "is not acted on" in said.err

    def test_a_decision_is_about_one(self) -> None:
        assert run_cli(["resume", "--take", "base"]).code == 2

    def test_nothing_is_open(self) -> None:
        said = run_cli(["resume"])
        assert (said.code, said.out) == (0, "nothing is open\n")

    def test_a_decision_where_nothing_is_to_be_decided(
        self, make_rig: MakeRig, journal: Journal
    ) -> None:
        with make_rig("raw") as rig:
            with rig.host() as host, pytest.raises(Killed):
                created(journal, dying_at(host, Does.SWITCH), (NEW,))
            (entry,) = run_cli(["log", "-o", "json"]).json["operations"]
            said = run_cli(["resume", entry["id"], "--take", "base"])
            assert said.code == 4, said
            assert run_cli(["resume"]).code == 0
