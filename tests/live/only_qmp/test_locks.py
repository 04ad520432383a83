"""Two calls on two disks of one guest, each by a socket of its own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import qmpsnap
from qmpsnap.operations.requests import CreateRequest
from qmpsnap.operations.snapshot import create
from qmpsnap.operations.step import Does, Step
from tests.rig import images
from tests.rig.disks import raw_disk
from tests.rig.doors import at, with_door
from tests.rig.rig import MIB, Rig, Said, run_cli
from tests.rig.roads import direct_rig


@pytest.fixture
def second() -> Iterator[str]:
    """Path of another socket."""
    with tempfile.TemporaryDirectory(prefix="qs-", dir="/tmp") as scratch:
        yield f"{scratch}/second"


@pytest.fixture
def rig(tmp_path: Path, second: str) -> Iterator[Rig]:
    for name in ("a", "b"):
        images.create_raw(tmp_path / name, MIB)
    disks = [raw_disk(tmp_path / name, f"vd{name}", name) for name in ("a", "b")]
    with direct_rig(tmp_path, disks, ["-qmp", f"unix:{second},server=on,wait=off"]) as made:
        yield made


def test_what_a_call_has_open_is_no_leftover_of_a_dead_one(rig: Rig, second: str) -> None:
    """An overlay that waits for its switch looks the same, but for the lock."""
    said: list[Said] = []

    def other_disk(_step: Step) -> None:
        said.append(run_cli(["--qmp", second, "create", "vdb", "s1"]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, other_disk))
        create(meddling, CreateRequest(disk="vda", new_file=None, snapshot="s1"))
    assert said[0].code == 0, said
    with rig.host() as host:
        chains = [[layer.file for layer in disk.layers] for disk in host.read().disks]
    assert chains == [["a.s1", "a"], ["b.s1", "b"]]


def test_the_same_disk_is_refused(rig: Rig, second: str) -> None:
    said: list[Said] = []

    def same_disk(_step: Step) -> None:
        said.append(run_cli(["--qmp", second, "create", "vda", "s1"]))
        said.append(run_cli(["--qmp", second, "create", "vdb", "s1", "--also", "vda"]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, same_disk))
        create(meddling, CreateRequest(disk="vda", new_file=None, snapshot="s1"))
    assert [one.code for one in said] == [4, 4], said
    assert all("another operation is at work on" in one.err for one in said)


def test_the_same_request_is_told_by_the_call_that_is_at_work_on_it(rig: Rig, second: str) -> None:
    """The other one's answer may come later: an error would be told of what has succeeded."""
    said: list[Said] = []
    info = {"type": "qcow2", "new_file": "a.s1", "snapshot_id": "s1"}
    words = ["--qmp", second, "volume-snapshot-create", "vda"]

    def again(_step: Step) -> None:
        said.append(run_cli([*words, json.dumps(info)]))
        said.append(run_cli([*words, json.dumps({**info, "new_file": "a.s2"})]))

    with rig.host() as host:
        meddling = with_door(host, before=at(Does.SWITCH, again))
        done = qmpsnap.volume_snapshot_create(meddling, "vda", info)
    assert done.error is None, done
    assert [one.code for one in said] == [4, 4], said
    assert [one.status["status"] for one in said] == ["creating", "error"]
