"""Updates of real operations, by commands that are killed: nothing is told that is not known."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from qmpsnap.journal.file import Journal
from tests.rig.remedies import remedy
from tests.rig.rig import BASE, SERIAL, run_cli
from tests.rig.roads import MakeRig
from tests.rig.state_folder import own_state
from tests.rig.waiting import until


@pytest.fixture(autouse=True)
def journal(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Journal:
    own_state(tmp_path_factory, monkeypatch)
    return Journal()


def letters() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_cli(["outbox", "list", "--all", "-o", "json"]).json["updates"]
    return found


def delete_info(token: str) -> str:
    info = {"file_to_merge": f"{BASE}.s1", "merge_target_file": BASE, "operation": token}
    return json.dumps({"type": "qcow2", **info})


def test_a_create_and_a_delete(make_rig: MakeRig, journal: Journal) -> None:
    path = journal.path.with_name("updates")
    report = ("--report", f"file:{path}")
    with make_rig("raw") as rig:
        info = {"type": "qcow2", "new_file": f"{BASE}.s1", "snapshot_id": "one", "id": "t1"}
        create = rig.cli("volume-snapshot-create", SERIAL, json.dumps(info), *report)
        info |= {"new_file": f"{BASE}.s2", "snapshot_id": "two", "id": "t2"}
        rig.cli("volume-snapshot-create", SERIAL, json.dumps(info), *report)
        delete = rig.cli("volume-snapshot-delete", SERIAL, "one", delete_info("t3"), *report)
    assert (create.code, delete.code) == (0, 0)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["snapshot"] for one in lines] == ["one", "two", "one"]
    assert lines[0]["body"] == json.loads(create.out)
    assert lines[2]["body"] == json.loads(delete.out)
    told = lines[2]["body"]["os-update_snapshot_status"]
    assert (told["operation"], told["file_format"]) == ("t3", {BASE: "raw"})
    assert {one["state"] for one in letters()} == {"closed"}


@remedy("NotSendable", "NotDroppable")
def test_killed_in_the_middle_of_a_job(make_rig: MakeRig, journal: Journal) -> None:
    path = journal.path.with_name("updates")
    report = ["--report", f"file:{path}"]
    with make_rig("raw") as rig:
        rig.grow(3)
        command = [*rig.road, "volume-snapshot-delete", SERIAL, "one", delete_info("t1"), *report]
        command = [sys.executable, "-m", "qmpsnap", *command, "--bandwidth", "1"]
        with subprocess.Popen(command) as process:
            until(lambda: bool(rig.guest.qmp("query-jobs")))
            process.kill()
        (letter,) = letters()
        assert (letter["state"], letter["outcome"], letter["operation"]) == ("due", None, "t1")
        for act in ("send", "drop"):
            said = run_cli(["outbox", act, letter["id"]])
            assert said.code == 4
            assert "qmpsnap resume" in said.err
        assert not path.exists()
        (job,) = rig.cli("job", "list", "-o", "json").json["jobs"]
        rig.cli("job", "set-speed", job["id"], "0")
        said = run_cli(["resume"])
        assert said.code == 0, said
        assert "is stored, and not accepted yet" in said.err
        assert [one["state"] for one in letters()] == ["waiting"]
        assert run_cli(["outbox", "send", letter["id"]]).code == 0
        (line,) = path.read_text().splitlines()
        told = json.loads(line)["body"]["os-update_snapshot_status"]
        assert told == {
            "status": "deleting_compute_complete",
            "progress": "90%",
            "file_format": {BASE: "raw"},
            "operation": "t1",
        }


def test_resume_sends_it_as_well(make_rig: MakeRig, journal: Journal) -> None:
    path = journal.path.with_name("updates")
    report = ["--report", f"file:{path}"]
    with make_rig("raw") as rig:
        rig.grow(3)
        command = [*rig.road, "volume-snapshot-delete", SERIAL, "one", delete_info("t1"), *report]
        command = [sys.executable, "-m", "qmpsnap", *command, "--bandwidth", "1"]
        with subprocess.Popen(command) as process:
            until(lambda: bool(rig.guest.qmp("query-jobs")))
            process.kill()
        (job,) = rig.cli("job", "list", "-o", "json").json["jobs"]
        rig.cli("job", "set-speed", job["id"], "0")
        other = path.with_name("other")
        assert run_cli(["resume", "--plan", "--report", f"file:{other}"]).code == 0
        assert not other.exists()
        assert run_cli(["resume", "--report", f"file:{other}"]).code == 0
        assert len(other.read_text().splitlines()) == 1
    assert not path.exists()
    assert [one["state"] for one in letters()] == ["closed"]
