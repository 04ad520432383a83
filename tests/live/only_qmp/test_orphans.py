"""Nodes that an operation leaves behind: ours are removed, whatever became of it; no others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qmpsnap.errors import QmpsnapError
from qmpsnap.operations import merge
from qmpsnap.operations.clear import cleared
from qmpsnap.operations.options import MergeOptions
from qmpsnap.operations.step import Does
from tests.rig import images
from tests.rig.disks import qcow2_chain
from tests.rig.doors import Killed, dying_at
from tests.rig.jobs import AFTERWARDS, HELD, REQUESTS, make_chain, merged
from tests.rig.rig import BASE, DISK, MIB, SIZE, Rig, assert_sound
from tests.rig.roads import direct_rig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder for the chain."""
    folder = tmp_path / "share"
    folder.mkdir()
    return folder


@contextmanager
def named_by_the_operator(folder: Path, size: int = SIZE) -> Iterator[Rig]:
    """Start a guest with a chain of three, every node of which the operator has named."""
    make_chain(folder, size)
    files = (*((folder / f"{BASE}.s{n}", "qcow2") for n in (2, 1)), (folder / BASE, "raw"))
    with direct_rig(folder, qcow2_chain(files, DISK, "1234")) as rig:
        yield rig


def nodes(rig: Rig) -> set[str]:
    """Names of all nodes that QEMU has."""
    found = rig.guest.qmp("query-named-block-nodes", {"flat": True})
    assert isinstance(found, list)
    return {one["node-name"] for one in found}


def in_chain(rig: Rig) -> set[str | None]:
    """Names of the nodes of the disk."""
    return {
        name
        for layer in rig.disk().layers
        for name in (layer.top_node, layer.node, layer.protocol_node)
    }


def add_their_nodes(rig: Rig) -> set[str]:
    """
    What an operator may have beside the disk, read by nothing.

    One is an overlay that they are about to use, over the very file that ours are committed into.
    """
    other = rig.folder.parent / "other"
    images.create_qcow2(other, SIZE)
    file = {"driver": "file", "node-name": "their-file", "filename": str(other)}
    rig.guest.qmp("blockdev-add", file)
    over = rig.folder.parent / "over"
    images.create_qcow2(over, SIZE, str(other), "qcow2")
    node = {"driver": "qcow2", "node-name": "their-overlay", "backing": BASE_NODE}
    below = {"driver": "file", "filename": str(over), "node-name": "their-overlay-file"}
    rig.guest.qmp("blockdev-add", {**node, "file": below})
    return {"their-file", "their-overlay", "their-overlay-file"}


BASE_NODE = f"{DISK}-2-fmt"


@pytest.mark.parametrize("kind", REQUESTS)
def test_after_a_merge_only_the_chain_is_left(folder: Path, kind: str) -> None:
    with named_by_the_operator(folder) as rig:
        with rig.host() as host:
            merged(host, kind, MergeOptions())
        assert rig.files() == AFTERWARDS[kind]
        assert nodes(rig) == in_chain(rig)


@pytest.mark.parametrize("kind", REQUESTS)
def test_after_a_job_that_was_cancelled_all_is_as_before(folder: Path, kind: str) -> None:
    with named_by_the_operator(folder, 16 * MIB) as rig:
        before = nodes(rig)
        with rig.host() as host:
            cancelled: list[str] = []

            def cancel(plan: object, view: object) -> None:
                jobs = rig.guest.qmp("query-jobs")
                assert isinstance(jobs, list)
                # Once: it may go on as `running` for a moment, and have ended by the second time.
                if jobs[0]["status"] in ("running", "ready") and not cancelled:
                    cancelled.append(jobs[0]["id"])
                    rig.guest.qmp("job-cancel", {"id": cancelled[0]})

            with pytest.raises(QmpsnapError):
                merged(host, kind, HELD, progress=cancel)
        assert nodes(rig) == before
        assert rig.guest.qmp("query-jobs") == []


def test_after_a_create_that_failed_all_is_as_before(folder: Path) -> None:
    with named_by_the_operator(folder) as rig:
        before = nodes(rig)
        job = {"job-id": "theirs", "device": rig.guest.active_node(DISK), "speed": 1}
        rig.guest.qmp("block-stream", job)
        said = rig.cli("create", DISK, "new")
        assert said.code != 0
        assert not (folder / f"{BASE}.new").exists()
        rig.guest.qmp("job-cancel", {"id": "theirs"})
        while rig.guest.qmp("query-jobs"):
            pass
        assert nodes(rig) == before


@pytest.mark.parametrize("does", [Does.CLOSE, Does.DISMISS])
def test_tool_that_is_killed_between_a_pivot_and_the_end(folder: Path, does: Does) -> None:
    """The ended job proves which nodes were its own, though the operator has named them."""
    with named_by_the_operator(folder) as rig:
        content = rig.guest.read_sha256(DISK)
        with rig.host() as host, pytest.raises(Killed):
            merge.delete(dying_at(host, does), REQUESTS["active-commit"])
        add_their_nodes(rig)
        assert rig.cli("jobs").code == 0
        assert rig.cli("chain").code == 0  # who only looks clears nothing away
        left = nodes(rig), rig.guest.qmp("query-jobs")
        assert left[1], "the job proves whose the nodes are"
        said = rig.cli("create", DISK, "new", "--plan")
        assert said.code == 0, said
        assert (nodes(rig), rig.guest.qmp("query-jobs")) == left
        rig.guest.qmp("blockdev-del", {"node-name": "their-overlay"})
        rig.create("new")
        assert nodes(rig) == in_chain(rig) | {"their-file"}
        assert rig.guest.qmp("query-jobs") == []
        assert_sound(rig.disk())
        assert rig.guest.read_sha256(DISK) == content


def test_no_node_of_others_is_touched(folder: Path) -> None:
    with named_by_the_operator(folder) as rig:
        with rig.host() as host, pytest.raises(Killed):
            merge.delete(dying_at(host, Does.CLOSE), REQUESTS["active-commit"])
        theirs = add_their_nodes(rig)
        with rig.host() as host, host.files.claim() as claim:
            cleared(host, claim, (DISK,))
        assert nodes(rig) == in_chain(rig) | theirs
        assert rig.guest.qmp("query-jobs") == []


def test_node_that_is_exported_stays_and_is_told(folder: Path) -> None:
    with named_by_the_operator(folder) as rig:
        middle = rig.disk().layers[1].node
        rig.guest.qmp(
            "nbd-server-start",
            {"addr": {"type": "unix", "data": {"path": str(rig.folder.parent / "nbd")}}},
        )
        export = {"type": "nbd", "id": "theirs", "node-name": middle}
        rig.guest.qmp("block-export-add", export)
        said = rig.delete(None, None)
        assert said.code == 0, said
        assert f"node {middle} of {BASE}.s1 stays open" in said.err
        assert middle in nodes(rig)
