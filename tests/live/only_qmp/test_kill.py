"""
The tool dies at every step, and the same command is given again.

A door behind which the process dies, before or after its n-th act, stands for `kill -9`; a fresh
connection goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from qmpsnap.guests.files.header import read_header
from qmpsnap.operations import merge, outcome, snapshot
from qmpsnap.operations.guest import Guest
from qmpsnap.operations.requests import CreateRequest, DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.doors import Killed, dying, dying_at
from tests.rig.rig import BASE, DISK, SERIAL, Rig, assert_sound
from tests.rig.roads import MakeRig

STEPS = 9
"""More acts than any of the operations has."""


def _dies(rig: Rig, number: int, when: str, operation: Callable[[Guest], object]) -> bool:
    """Run an operation that dies at a step; False when it was over before."""
    with rig.host() as host:
        try:
            operation(dying(host, number, when))
        except Killed:
            return True
    return False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, 5))
def test_create(make_rig: MakeRig, number: int, when: str) -> None:
    request = CreateRequest(disk=SERIAL, new_file=f"{BASE}.new", snapshot="new")
    with make_rig("raw") as rig:
        rig.guest.write(DISK, 0, 65536, 1)
        content = rig.guest.read_sha256(DISK)
        died = _dies(rig, number, when, lambda host: snapshot.create(host, request))
        assert rig.guest.read_sha256(DISK) == content
        if len(rig.files()) == 1:
            assert died
            again = rig.create("new")
            assert again.status["file_format"] == {f"{BASE}.new": "qcow2"}
        assert rig.files() == [f"{BASE}.new", BASE]
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content
        assert not [path for path in rig.folder.iterdir() if path.suffix == ".tmp"]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("number", range(1, STEPS))
@pytest.mark.parametrize("kind", ["commit", "pull", "active-commit"])
def test_delete(make_rig: MakeRig, kind: str, number: int, when: str) -> None:
    request = {
        "commit": DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE),
        "pull": DeleteRequest(disk=SERIAL, file_to_merge=None, merge_target_file=None),
        "active-commit": DeleteRequest(
            disk=SERIAL, file_to_merge=f"{BASE}.s2", merge_target_file=f"{BASE}.s1"
        ),
    }[kind]
    expected = {
        "commit": [f"{BASE}.s2", BASE],
        "pull": [f"{BASE}.s2"],
        "active-commit": [f"{BASE}.s1", BASE],
    }[kind]
    with make_rig("raw") as rig:
        rig.grow(3)
        before, content = rig.files(), rig.guest.read_sha256(DISK)
        _dies(rig, number, when, lambda host: merge.delete(host, request))
        assert rig.guest.read_sha256(DISK) == content
        if rig.files() == before:
            # Either nothing was done yet, or the job waits in QEMU and is taken up.
            again = rig.delete(request.file_to_merge, request.merge_target_file)
            assert again.code == 0, again
        assert rig.files() == expected
        disk = rig.disk()
        assert_sound(disk)
        if kind == "pull":
            assert read_header(str(rig.folder / f"{BASE}.s2")).backing_file is None
        assert rig.guest.read_sha256(DISK) == content


def test_ctrl_c_leaves_the_job_and_the_same_command_takes_it_up(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        request = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)

        def interrupt(plan: object, view: object) -> None:
            raise KeyboardInterrupt

        with rig.host() as host, pytest.raises(outcome.Interrupted) as caught:
            merge.delete(host, request, interrupt)
        assert caught.value.exit_code == 6
        assert "same command" in caught.value.way_out
        jobs = rig.guest.qmp("query-jobs")
        assert isinstance(jobs, list)
        assert [job["type"] for job in jobs] == ["commit"]
        said = rig.delete(f"{BASE}.s1", BASE)
        assert said.code == 0, said
        assert rig.files() == [f"{BASE}.s2", BASE]
        assert rig.guest.qmp("query-jobs") == []


def test_qemu_dies_under_a_job(make_rig: MakeRig) -> None:
    with make_rig("raw") as rig:
        rig.grow(3)
        request = DeleteRequest(disk=SERIAL, file_to_merge=f"{BASE}.s1", merge_target_file=BASE)
        with rig.host() as host, pytest.raises(outcome.OutcomeUnknown) as caught:
            merge.delete(host, request, lambda plan, view: rig.kill())
        assert caught.value.exit_code == 6
        assert "Remove no file" in caught.value.way_out
        said = rig.cli("volume-snapshot-create", SERIAL, json.dumps({"type": "qcow2"}))
        assert said.status == {"status": "error", "progress": "0%"}


def test_a_finished_stream_of_somebody_else_does_not_cost_the_guest(make_rig: MakeRig) -> None:
    """Undismissed, it makes `query-named-block-nodes` crash QEMU 7.2."""
    with make_rig("raw") as rig:
        rig.grow(2)
        node = rig.guest.active_node(DISK)
        job = {"job-id": "theirs", "device": node, "auto-dismiss": False}
        rig.guest.qmp("block-stream", job)
        while rig.guest.qmp("query-jobs")[0]["status"] != "concluded":  # type: ignore[index]
            pass
        said = rig.cli("chain")
        assert said.code == 4
        assert "theirs" in said.err
        rig.guest.qmp("job-dismiss", {"id": "theirs"})
        assert rig.files() == [f"{BASE}.s1"]


@pytest.mark.parametrize("node", ["format", "attached"])
def test_nodes_that_a_dead_call_left_are_not_in_the_way(make_rig: MakeRig, node: str) -> None:
    """Killed between `blockdev-add` and the transaction, or between a pivot and the clean-up."""
    with make_rig("raw") as rig:
        rig.create("s1")
        rig.guest.write(DISK, 0, 65536, 1)
        content = rig.guest.read_sha256(DISK)
        if node == "format":
            new = rig.folder / f"{BASE}.new"
            images.create_qcow2(new, rig.guest.virtual_size(DISK), f"{BASE}.s1", "qcow2")
            opened = {"driver": "file", "filename": str(new)}
            add = {"driver": "qcow2", "node-name": "qmpsnap-00-format", "backing": None}
            rig.guest.qmp("blockdev-add", {**add, "file": opened})
        else:
            request = NamedDeleteRequest(disk=DISK, snapshot="s1")
            with rig.host() as host, pytest.raises(Killed):
                merge.delete(dying_at(host, Does.CLOSE), request)
            (rig.folder / f"{BASE}.s1").unlink()
        rig.create("new")
        assert rig.cli("delete", DISK, "new").code == 0
        assert rig.guest.read_sha256(DISK) == content
