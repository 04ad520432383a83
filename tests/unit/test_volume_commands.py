"""`volume-snapshot-create` and `-delete`: one line on stdout, and the exit code that goes with it."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import Any

import pytest

from qmpsnap.cli.connection import Road
from qmpsnap.formats.layers import Disks
from qmpsnap.monitor.base import LostInMidCommand
from qmpsnap.operations.job.states import JobStatus, JobView
from tests.rig.rig import Said, run_cli
from tests.unit import samples
from tests.unit.fake_guest import FakeGuest

CREATE: dict[str, object] = {"type": "qcow2", "new_file": "volume-1.new", "snapshot_id": "new"}
DELETE: dict[str, object] = {
    "type": "qcow2",
    "file_to_merge": "volume-1.s1",
    "merge_target_file": "volume-1",
}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeGuest:
    fake = FakeGuest(samples.guest(samples.disk(3)))
    monkeypatch.setattr(Road, "open", lambda _road, _guest: nullcontext(fake))
    return fake


def create(info: object = CREATE, *options: str) -> Said:
    text = info if isinstance(info, str) else json.dumps(info)
    return run_cli(["--qmp", "/no/socket", "volume-snapshot-create", "1", text, *options])


def delete(info: object = DELETE) -> Said:
    text = info if isinstance(info, str) else json.dumps(info)
    return run_cli(["--qmp", "/no/socket", "volume-snapshot-delete", "1", "id", text])


def test_done(fake: FakeGuest) -> None:
    fake.run = "io-error"
    said = delete({**DELETE, "operation": "a-token"})
    assert said.code == 0
    assert said.status == {
        "status": "deleting_compute_complete",
        "progress": "90%",
        "file_format": {"volume-1": "raw"},
        "operation": "a-token",
    }
    assert "note: the guest " in said.err


def test_legacy(fake: FakeGuest) -> None:
    said = create({**CREATE, "id": "a-token"}, "--dialect", "legacy")
    assert (said.code, said.status) == (0, {"status": "creating", "progress": "90%"})


def test_not_known(fake: FakeGuest) -> None:
    """The guest may write to the overlay by now."""
    fake.fails_after["switch"] = LostInMidCommand("transaction", "gone")
    fake.readings = [Disks(guest=None, disks=())]
    said = create()
    assert (said.code, said.status) == (6, {"status": "creating", "progress": "0%"})


def test_ctrl_c_while_a_job_runs(fake: FakeGuest) -> None:
    fake.views = [JobView(status=JobStatus.RUNNING)]
    fake.fails["wait"] = KeyboardInterrupt()
    said = delete()
    assert (said.code, said.status) == (6, {"status": "deleting", "progress": "0%"})
    assert "goes on in the guest" in said.err


def test_failed(fake: FakeGuest) -> None:
    fake.views = [JobView(status=JobStatus.CONCLUDED, error="No space left")]
    said = delete({**DELETE, "operation": "a-token"})
    assert said.code == 5
    expected = {"status": "error_deleting", "progress": "0%", "operation": "a-token"}
    assert said.status == expected


@pytest.mark.parametrize("token", [None, 7, "", {}])
def test_token_that_is_not_a_text(fake: FakeGuest, token: Any) -> None:
    said = create({**CREATE, "id": token})
    assert (said.code, said.status) == (4, {"status": "error", "progress": "0%"})
    assert not fake.calls


@pytest.mark.parametrize("text", ["no json", "[]", "7", "null"])
def test_not_json(fake: FakeGuest, text: str) -> None:
    assert (create(text).code, create(text).status["status"]) == (2, "error")
    assert (delete(text).code, delete(text).status["status"]) == (2, "error_deleting")


def test_unreachable() -> None:
    """Nothing was sent, so nothing can have happened."""
    assert (create().code, create().status) == (7, {"status": "error", "progress": "0%"})
    assert (delete().code, delete().status["status"]) == (7, "error_deleting")
