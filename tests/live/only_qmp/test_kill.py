"""
The tool or QEMU ends in the middle; every act of every operation: `tests/live/test_kill.py`.

A door behind which the process dies, before or after its n-th act, stands for `kill -9`; a fresh
connection goes on.
"""

from __future__ import annotations

import json

import pytest

from qmpsnap.operations import merge, outcome
from qmpsnap.operations.requests import DeleteRequest, NamedDeleteRequest
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.doors import Killed, dying_at
from tests.rig.headers import masks
from tests.rig.rig import BASE, DISK, SERIAL
from tests.rig.roads import MakeRig


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
        assert said.code == 0
        if not masks(rig, "block-stream"):  # before 9.0; 10.0 does not crash
            assert "was not asked for its nodes" in said.err
            assert "theirs" in said.err
            assert rig.cli("create", DISK, "new").code == 4
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
